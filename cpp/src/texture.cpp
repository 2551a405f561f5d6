#include "threedfa/texture.hpp"

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "threedfa/rasterizer.hpp"
#include "triangle_indices.hpp"

namespace threedfa {
namespace {

void require_image(const ImageView& image) {
  require(image.data != nullptr && image.height > 0 && image.width > 0 && image.channels > 0,
          "image", "at least 1 x 1 pixels of at least 1 channel",
          std::to_string(image.height) + " x " + std::to_string(image.width) + " x " +
              std::to_string(image.channels));
}

/// Two neighbouring columns (or rows) and the share of the second.
struct Neighbours {
  std::ptrdiff_t first;
  std::ptrdiff_t second;
  float share;
};

Neighbours neighbours(float position, int size) {
  // Also moves NaN to the border. In double, size - 1 is exact and fits an int again.
  const double inside = position > 0.0f ? std::min<double>(position, size - 1) : 0.0;
  const int first = static_cast<int>(inside);
  return {first, std::min(first + 1, size - 1), static_cast<float>(inside - first)};
}

}  // namespace

void sample_bilinear(const ImageView& image, Span<const float> points, int stride,
                     Span<float> out) {
  require_image(image);
  require(stride >= 2, "stride", "at least 2 (x and y)", std::to_string(stride));
  const auto step = static_cast<std::size_t>(stride);
  require(points.size() % step == 0, "points", std::to_string(stride) + " numbers for each point",
          std::to_string(points.size()) + " elements");
  const std::size_t count = points.size() / step;
  const auto channels = static_cast<std::size_t>(image.channels);
  require_size("out", count * channels, out.size());

  for (std::size_t i = 0; i < count; ++i) {
    const Neighbours x = neighbours(points[i * step], image.width);
    const Neighbours y = neighbours(points[i * step + 1], image.height);
    const std::uint8_t* above = image.data + y.first * image.row_stride;
    const std::uint8_t* below = image.data + y.second * image.row_stride;
    const std::ptrdiff_t left = x.first * image.channels;
    const std::ptrdiff_t right = x.second * image.channels;
    const float w00 = (1.0f - x.share) * (1.0f - y.share);
    const float w10 = (1.0f - x.share) * y.share;
    const float w01 = x.share * (1.0f - y.share);
    const float w11 = x.share * y.share;
    for (std::ptrdiff_t c = 0; c < image.channels; ++c) {
      out[i * channels + static_cast<std::size_t>(c)] =
          w00 * static_cast<float>(above[left + c]) + w10 * static_cast<float>(below[left + c]) +
          w01 * static_cast<float>(above[right + c]) + w11 * static_cast<float>(below[right + c]);
    }
  }
}

void uv_texture(const ImageView& image, Span<const float> vertices, Span<const float> uv,
                Span<const std::int32_t> triangles, int size, Span<std::uint8_t> out) {
  require_image(image);
  const std::size_t count = require_vertices(vertices);
  require_size("uv", 2 * count, uv.size());
  require(size > 0, "size", "at least 1", std::to_string(size));
  const std::size_t pixels = static_cast<std::size_t>(size) * static_cast<std::size_t>(size);
  const auto channels = static_cast<std::size_t>(image.channels);
  require_size("out", pixels * channels, out.size());

  std::vector<float> colours(count * channels);
  sample_bilinear(image, vertices, 3, colours);

  // The layout's corners, (0, 0) and (1, 1), are centres of pixels. A hair more than that, and the
  // centres on its right and bottom borders are drawn as those on the left and top ones are.
  // Everything lies at depth 0: where the layout overlaps itself the first triangle stays.
  const float scale = static_cast<float>(size - 1) * (1.0f + 0x1p-20f);
  std::vector<float> flat(3 * count, 0.0f);
  for (std::size_t i = 0; i < count; ++i) {
    flat[3 * i] = uv[2 * i] * scale;
    flat[3 * i + 1] = scale - uv[2 * i + 1] * scale;
  }

  std::vector<float> depth(pixels);
  std::vector<float> texture(pixels * channels, 0.0f);
  RasterBuffers buffers;
  buffers.height = size;
  buffers.width = size;
  buffers.depth = depth.data();
  buffers.image = texture.data();
  clear(buffers);
  rasterize(flat, triangles, colours, image.channels, buffers);
  // Truncated, as 3DDFA_V2 does.
  std::transform(texture.begin(), texture.end(), out.begin(), [](float value) {
    return static_cast<std::uint8_t>(std::clamp(value, 0.0f, 255.0f));
  });
}

}  // namespace threedfa
