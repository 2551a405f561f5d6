#include "threedfa/painting.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "bounds.hpp"
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

/// 0..1 to 0..255, rounded down; without branches, many at once.
void to_bytes(const float* values, std::size_t count, std::uint8_t* out) {
  for (std::size_t i = 0; i < count; ++i) {
    const float positive = values[i] > 0.0f ? values[i] * 255.0f : 0.0f;
    out[i] =
        static_cast<std::uint8_t>(static_cast<std::int32_t>(positive < 255.0f ? positive : 255.0f));
  }
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
            std::to_string(canvas.height) + " x " + std::to_string(canvas.width));
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
  workspace.row.resize(channels * width);
  buffers.depth = workspace.depth.data();
  buffers.image = workspace.image.data();
  clear(buffers);
  rasterize(vertices, triangles, colors, static_cast<int>(channels), buffers);

  for (int row = 0; row < buffers.height; ++row) {
    const std::size_t first = static_cast<std::size_t>(row) * width;
    const float* const depth = &workspace.depth[first];
    const std::uint8_t* color = workspace.row.data();
    to_bytes(&workspace.image[channels * first], channels * width, workspace.row.data());
    std::uint8_t* out =
        canvas.data + (buffers.top + row) * canvas.row_stride + std::ptrdiff_t{3} * buffers.left;
    for (std::size_t i = 0; i < width; ++i, out += 3, color += channels) {
      if (depth[i] == -std::numeric_limits<float>::infinity()) continue;
      out[0] = color[0];
      out[1] = color[channels == 1 ? 0 : 1];
      out[2] = color[channels == 1 ? 0 : 2];
    }
  }
}

}  // namespace threedfa
