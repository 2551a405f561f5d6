#include "threedfa/painting.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "bounds.hpp"
#include "rasterize_bytes.hpp"
#include "row_stride.hpp"
#include "threedfa/rasterizer.hpp"
#include "triangle_indices.hpp"

namespace threedfa {
namespace {

/// The part of 0..size-1 in which coordinates low..high are seen, as the first and how many; one
/// pixel at least.
void find_window(float low, float high, int size, int& first, int& count) {
  const auto end = static_cast<float>(size - 1);
  first = static_cast<int>(std::max(std::min(low, end), 0.0f));
  const int last = static_cast<int>(std::max(std::min(high, end), 0.0f));
  count = std::max(last - first, 0) + 1;
}

}  // namespace

void paint_mesh(const Canvas& canvas, Span<const float> vertices,
                Span<const std::int32_t> triangles, Span<const float> colors,
                PaintWorkspace& workspace) {
  const std::size_t count = require_vertices(vertices);
  constexpr int kMost = 1 << 24;  // as for rasterize
  const auto fits = [](int size) { return size >= 1 && size <= kMost; };
  if (canvas.data == nullptr || !fits(canvas.height) || !fits(canvas.width)) {
    require(false, "canvas", "pixels, their height and width in 1.." + std::to_string(kMost),
            canvas.height, " x ", canvas.width);
  }
  require_row_stride("canvas.row_stride", canvas.height, std::ptrdiff_t{3} * canvas.width,
                     canvas.row_stride);
  const std::size_t channels = colors.size() == count ? 1 : 3;
  require_size("colors", channels * count, colors.size());

  RasterBuffers buffers;
  const Bounds bounds = bounds_of(vertices);
  find_window(bounds.low[0], bounds.high[0], canvas.width, buffers.left, buffers.width);
  find_window(bounds.low[1], bounds.high[1], canvas.height, buffers.top, buffers.height);
  workspace.depth.resize(static_cast<std::size_t>(buffers.height) *
                         static_cast<std::size_t>(buffers.width));
  buffers.depth = workspace.depth.data();
  clear(buffers);
  std::uint8_t* const corner =
      canvas.data + buffers.top * canvas.row_stride + std::ptrdiff_t{3} * buffers.left;
  rasterize_bytes(vertices, triangles, colors, static_cast<int>(channels), buffers,
                  {corner, canvas.row_stride, buffers.width, 3, 255.0f});
}

}  // namespace threedfa
