#define THREEDFA_SIMD_NAME "neon"
#define THREEDFA_SIMD_LOOPS neon_loops
#include "loops.inl"
