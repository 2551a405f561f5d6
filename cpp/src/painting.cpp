#include "threedfa/painting.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "threedfa/rasterizer.hpp"
#include "triangle_indices.hpp"

namespace threedfa {
namespace {

/// The part of 0..size-1 from which coordinates are seen, as the first and how many; one pixel at
/// least. `axis` is 0 for x and 1 for y.
void find_window(Span<const float> vertices, std::size_t axis, int size, int& first, int& count) {
  float low = static_cast<float>(size - 1), high = 0.0f;
  for (std::size_t i = axis; i < vertices.size(); i += 3) {
    low = std::min(low, vertices[i]);
    high = std::max(high, vertices[i]);
  }
  first = static_cast<int>(std::max(low, 0.0f));
  const int last = static_cast<int>(std::min(high, static_cast<float>(size - 1)));
  count = std::max(last - first, 0) + 1;
}

std::uint8_t to_byte(float value) {
  return static_cast<std::uint8_t>(value > 0.0f ? std::min(value * 255.0f, 255.0f) : 0.0f);
}

}  // namespace

void paint_mesh(const Canvas& canvas, Span<const float> vertices,
                Span<const std::int32_t> triangles, Span<const float> colors,
                PaintWorkspace& workspace) {
  const std::size_t count = require_vertices(vertices);
  require_triangles(triangles, count);
  if (canvas.data == nullptr || canvas.height < 1 || canvas.width < 1) {
    require(false, "canvas", "at least 1 x 1 pixels",
            std::to_string(canvas.height) + " x " + std::to_string(canvas.width));
  }
  const std::size_t channels = colors.size() == count ? 1 : 3;
  require_size("colors", channels * count, colors.size());
  if (count == 0) return;

  RasterBuffers buffers;
  find_window(vertices, 0, canvas.width, buffers.left, buffers.width);
  find_window(vertices, 1, canvas.height, buffers.top, buffers.height);
  const auto width = static_cast<std::size_t>(buffers.width);
  const std::size_t pixels = static_cast<std::size_t>(buffers.height) * width;
  workspace.depth.resize(pixels);
  workspace.image.resize(channels * pixels);
  buffers.depth = workspace.depth.data();
  buffers.image = workspace.image.data();
  clear(buffers);
  rasterize(vertices, triangles, colors, static_cast<int>(channels), buffers);

  for (int row = 0; row < buffers.height; ++row) {
    const std::size_t first = static_cast<std::size_t>(row) * width;
    std::uint8_t* out =
        canvas.data + (buffers.top + row) * canvas.row_stride + std::ptrdiff_t{3} * buffers.left;
    for (std::size_t i = first; i < first + width; ++i, out += 3) {
      if (workspace.depth[i] == -std::numeric_limits<float>::infinity()) continue;
      const float* const color = &workspace.image[channels * i];
      for (std::size_t c = 0; c < 3; ++c) out[c] = to_byte(color[channels == 1 ? 0 : c]);
    }
  }
}

}  // namespace threedfa
