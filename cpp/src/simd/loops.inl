// Included by one file for each instruction set, which sets THREEDFA_SIMD_NAME, compile flags and
// what may be used: THREEDFA_SIMD_AVX2, THREEDFA_SIMD_AVX512 or THREEDFA_SIMD_NEON. The compiler's
// own macros would not do: with -march=native they are set for the plain build, too, which is the
// one that reads nothing beyond its input.
// Nothing here or in its parts may be a template or an inline function from elsewhere: the linker
// keeps one copy of those, which could be the one for instructions that the machine does not have.

#include <math.h>  // the C functions, which are not inline
#include <string.h>

#include <type_traits>

#include "loops.hpp"
#include "triangle.hpp"

#if defined(THREEDFA_SIMD_AVX2)
#include <immintrin.h>
#elif defined(THREEDFA_SIMD_NEON)
#include <arm_neon.h>
#endif

// Tells the compiler that what a loop writes is not what it reads.
#if defined(THREEDFA_SIMD_PLAIN)
#define THREEDFA_SIMD_INDEPENDENT
#elif defined(__clang__)
#define THREEDFA_SIMD_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define THREEDFA_SIMD_INDEPENDENT _Pragma("GCC ivdep")
#else
#define THREEDFA_SIMD_INDEPENDENT
#endif

// For a function so long that Clang would call it, once for each round of a loop.
#ifdef _MSC_VER
#define THREEDFA_SIMD_INLINE inline
#else
#define THREEDFA_SIMD_INLINE [[gnu::always_inline]] inline
#endif

namespace threedfa::simd {
namespace {

#include "arrays.inl"
#include "crop.inl"
#include "lanes.inl"
#include "morphable_model.inl"
#include "nms.inl"
#include "normals.inl"
#include "rasterizer.inl"
#include "shading.inl"
#include "texture.inl"

}  // namespace

extern const Loops THREEDFA_SIMD_LOOPS;
const Loops THREEDFA_SIMD_LOOPS = {
    THREEDFA_SIMD_NAME, add_rows,         overlaps_any,       resample_planes,
    blend_rows,         blend_normalized, normalize_pixels,   grey_row,
    normalize_grey,     resample_grey,    blend_grey,         scatter_areas,
    walk_areas,         unit_vectors,     unit_float_vectors, shade,
    find_bounds,        largest_index,    set_up_triangles,   cover_small,
    cover_medium,       cover_row,        paint_attributes,   paint_bytes,
    sample_points};

}  // namespace threedfa::simd
