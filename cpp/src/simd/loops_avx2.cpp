#define THREEDFA_SIMD_NAME "avx2"
#define THREEDFA_SIMD_LOOPS avx2_loops
#define THREEDFA_SIMD_AVX2
#include "loops.inl"
