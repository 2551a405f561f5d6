#define THREEDFA_SIMD_NAME "neon"
#define THREEDFA_SIMD_LOOPS neon_loops
#define THREEDFA_SIMD_NEON  // unlike the compiler's own macro, not set in the plain build
#include "loops.inl"
