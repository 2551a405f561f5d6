#pragma once

#include <cstddef>
#include <cstdint>

#include "threedfa/span.hpp"

namespace threedfa {

/// Of one set of buffers, so that an int counts them.
inline constexpr std::size_t kMostRasterPixels = std::size_t{1} << 30;

/// Buffers of height x width pixels that `rasterize` draws into. `depth` is always needed; the
/// others are skipped where null. Their first pixel shows the point (left, top).
struct RasterBuffers {
  int height = 0;
  int width = 0;  ///< at most kMostRasterPixels in all
  int left = 0;   ///< of a window of a larger picture; right and bottom ends are at most 2^24
  int top = 0;
  float* depth = nullptr;            ///< H x W; -infinity where nothing is drawn
  std::int32_t* triangle = nullptr;  ///< H x W; -1 where nothing is drawn
  float* barycentric = nullptr;      ///< H x W x 3; 0 where nothing is drawn
  float* image = nullptr;            ///< H x W x channels; left alone where nothing is drawn
};

/// Writes "nothing drawn" into depth, triangle and barycentric; leaves image alone.
void clear(const RasterBuffers& buffers);

/// Z-buffer rasterizer; it allocates nothing. Vertices are x right, y down, in pixels, pixel
/// centres at whole numbers; z grows towards the viewer.
///
/// Every pixel whose centre a triangle covers is drawn, centres on an edge by the top-left rule, so
/// triangles that share an edge draw each pixel on it exactly once. Both sides of a triangle are
/// drawn. A pixel goes to the triangle with the largest z, the earlier one where they are
/// equal. Parts outside the buffers are clipped; triangles without area, with a vertex that is not
/// finite, or with depths so far apart that float does not hold the difference are skipped. The
/// buffers are not cleared first.
///
/// Which pixels a triangle covers is decided exactly, wherever rounding could change it. Weights
/// and depth are single precision: weights are off by 1e-6 as a rule and 1.3e-4 at most.
///
/// @param vertices   V x 3
/// @param triangles  T x 3, indices in 0..V-1
/// @param attributes V x channels, interpolated into buffers.image; empty if image is null. Float
///                   must hold the differences of neighbours
/// @throws std::invalid_argument on sizes that do not match or an index out of range
void rasterize(Span<const float> vertices, Span<const std::int32_t> triangles,
               Span<const float> attributes, int channels, const RasterBuffers& buffers);

}  // namespace threedfa
