#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "threedfa/span.hpp"

namespace threedfa {

/// An interleaved 8-bit picture of three channels to draw into: pixel (x, y), channel c is
/// `data[y * row_stride + 3 * x + c]`.
struct Canvas {
  std::uint8_t* data = nullptr;
  int height = 0;
  int width = 0;
  std::ptrdiff_t row_stride = 0;  ///< bytes from one row to the next
};

/// Memory that `paint_mesh` works in, of the size of the mesh in the picture. Kept between calls,
/// it is allocated once.
struct PaintWorkspace {
  std::vector<float> depth;
};

/// Draws a mesh with the colours of its vertices interpolated, see `rasterize`. What it does not
/// cover stays.
/// @param vertices  V x 3, pixels of the canvas, z towards the viewer
/// @param triangles T x 3, indices in 0..V-1
/// @param colors    V x 3, or V for greys; 0..1 become 0..255, rounded down, those beyond are cut
/// @throws std::invalid_argument on sizes that do not match or an index out of range
void paint_mesh(const Canvas& canvas, Span<const float> vertices,
                Span<const std::int32_t> triangles, Span<const float> colors,
                PaintWorkspace& workspace);

}  // namespace threedfa
