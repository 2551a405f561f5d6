#define THREEDFA_SIMD_NAME "avx512"
#define THREEDFA_SIMD_LOOPS avx512_loops
#define THREEDFA_SIMD_AVX2
#define THREEDFA_SIMD_AVX512
#include "loops.inl"
