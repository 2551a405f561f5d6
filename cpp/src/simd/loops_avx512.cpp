#define THREEDFA_SIMD_NAME "avx512"
#define THREEDFA_SIMD_LOOPS avx512_loops
#include "loops.inl"
