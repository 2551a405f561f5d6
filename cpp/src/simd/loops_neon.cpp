#define THREEDFA_SIMD_NAME "neon"
#define THREEDFA_SIMD_LOOPS neon_loops
#define THREEDFA_SIMD_NEON
#include "loops.inl"
