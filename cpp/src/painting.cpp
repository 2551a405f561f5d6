#include "threedfa/painting.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "bounds.hpp"
#include "row_stride.hpp"
#include "simd/loops.hpp"
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
  const auto width = static_cast<std::size_t>(buffers.width);
  const std::size_t pixels = static_cast<std::size_t>(buffers.height) * width;
  workspace.depth.resize(pixels);
  workspace.image.resize(channels * pixels);
  workspace.row.resize(width);
  buffers.depth = workspace.depth.data();
  buffers.image = workspace.image.data();
  clear(buffers);
  rasterize(vertices, triangles, colors, static_cast<int>(channels), buffers);

  const simd::Loops& loops = simd::loops();
  const auto is_drawn = [](float z) { return z != -std::numeric_limits<float>::infinity(); };
  for (int row = 0; row < buffers.height; ++row) {
    const std::size_t first = static_cast<std::size_t>(row) * width;
    const float *const depth = &workspace.depth[first], *const depth_end = depth + width;
    const float* const color = &workspace.image[channels * first];
    std::uint8_t* const out =
        canvas.data + (buffers.top + row) * canvas.row_stride + std::ptrdiff_t{3} * buffers.left;
    // One run of drawn pixels after the other.
    for (const float* end = depth;;) {
      const float* const begin = std::find_if(end, depth_end, is_drawn);
      if (begin == depth_end) break;
      end = std::find_if_not(begin, depth_end, is_drawn);
      const auto from = static_cast<std::size_t>(begin - depth);
      const auto run = static_cast<std::size_t>(end - begin);
      if (channels == 3) {
        loops.to_bytes(color + 3 * from, 255.0f, 3 * run, out + 3 * from);
        continue;
      }
      loops.to_bytes(color + from, 255.0f, run, workspace.row.data());
      for (std::size_t i = 0; i < run; ++i) {
        std::fill_n(out + 3 * (from + i), 3, workspace.row[i]);
      }
    }
  }
}

}  // namespace threedfa
