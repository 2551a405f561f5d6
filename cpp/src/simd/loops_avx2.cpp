#define THREEDFA_SIMD_NAME "avx2"
#define THREEDFA_SIMD_LOOPS avx2_loops
#include "loops.inl"
