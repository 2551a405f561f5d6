#define THREEDFA_SIMD_NAME "scalar"
#define THREEDFA_SIMD_LOOPS scalar_loops
#include "loops.inl"
