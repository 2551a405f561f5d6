#include "threedfa/texture.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bounds.hpp"
#include "channels.hpp"
#include "rasterize_bytes.hpp"
#include "row_stride.hpp"
#include "simd/loops.hpp"
#include "threedfa/rasterizer.hpp"
#include "triangle_indices.hpp"

namespace threedfa {
namespace {

void require_image(const ImageView& image) {
  require(image.data != nullptr && image.height >= 1 && image.width >= 1 && image.channels >= 1,
          "image", "at least 1 x 1 pixels of at least 1 channel", image.height, " x ", image.width,
          " x ", image.channels);
  require_row_stride("image.row_stride", image.height,
                     static_cast<std::ptrdiff_t>(image.width) * image.channels, image.row_stride);
}

void require_finite(const char* name, Span<const float> values) {
  const bool finite =
      std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
  require(finite, name, "finite coordinates", "infinity or NaN");
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

/// One bilinear sample, a float for each channel.
template <class Channels>
void sample(const ImageView& image, float px, float py, Channels channels, float* out) {
  const Neighbours x = neighbours(px, image.width);
  const Neighbours y = neighbours(py, image.height);
  const std::uint8_t* above = image.data + y.first * image.row_stride;
  const std::uint8_t* below = image.data + y.second * image.row_stride;
  const std::ptrdiff_t left = x.first * channels;
  const std::ptrdiff_t right = x.second * channels;
  const float w00 = (1.0f - x.share) * (1.0f - y.share);
  const float w10 = (1.0f - x.share) * y.share;
  const float w01 = x.share * (1.0f - y.share);
  const float w11 = x.share * y.share;
  for (std::ptrdiff_t c = 0; c < channels; ++c) {
    out[c] = w00 * static_cast<float>(above[left + c]) + w10 * static_cast<float>(below[left + c]) +
             w01 * static_cast<float>(above[right + c]) +
             w11 * static_cast<float>(below[right + c]);
  }
}

/// The image for the loop that samples many points, unless it is too large or too small for it.
std::optional<simd::SampledImage> as_sampled(const ImageView& image) {
  constexpr int kMostSide = simd::SampledImage::kMostSide;
  if (image.height > kMostSide || image.width > kMostSide || image.channels > 4) return {};
  const std::int64_t stride = image.row_stride, rows_before = image.height - 1;
  const std::int64_t row = std::int64_t{image.width} * image.channels;
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  if (rows_before > 0 && std::abs(stride) > (kMost - row) / rows_before) return {};
  const std::int64_t size = std::abs(stride) * rows_before + row;
  if (size < 4 || size > kMost) return {};
  const std::int64_t origin = stride < 0 ? -stride * rows_before : 0;
  return simd::SampledImage{image.data - origin,
                            static_cast<std::int32_t>(size),
                            static_cast<std::int32_t>(origin),
                            static_cast<std::int32_t>(rows_before > 0 ? stride : 0),
                            image.height,
                            image.width,
                            image.channels};
}

/// Bilinear samples at points, N x `stride` floats of which x and y come first.
void sample_points(const ImageView& image, const float* points, std::size_t stride,
                   std::size_t count, float* out) {
  const auto sampled = as_sampled(image);
  if (sampled && stride <= simd::SampledImage::kMostStride) {
    simd::loops().sample_points(*sampled, points, stride, count, out);
    return;
  }
  with_channels(std::ptrdiff_t{image.channels}, [&](auto channels) {
    for (std::size_t i = 0; i < count; ++i) {
      sample(image, points[i * stride], points[i * stride + 1], channels,
             out + static_cast<std::ptrdiff_t>(i) * channels);
    }
  });
}

/// The z-buffer of a mesh, as fine as asked for however large the mesh is in the picture.
class DepthMap {
 public:
  DepthMap(Span<const float> vertices, Span<const std::int32_t> triangles, int longer_side) {
    const std::size_t count = vertices.size() / 3;
    double right = 0.0;
    double bottom = 0.0;
    if (count > 0) {
      const Bounds bounds = bounds_of(vertices);
      left_ = bounds.low[0];
      top_ = bounds.low[1];
      right = bounds.high[0];
      bottom = bounds.high[1];
    }
    const double extent = std::max(right - left_, bottom - top_);
    scale_ = extent > 0.0 ? (longer_side - 1) / extent : 1.0;
    std::vector<float> scaled(vertices.begin(), vertices.end());
    for (std::size_t i = 0; i < count; ++i) {
      scaled[3 * i] = static_cast<float>((scaled[3 * i] - left_) * scale_);
      scaled[3 * i + 1] = static_cast<float>((scaled[3 * i + 1] - top_) * scale_);
    }
    buffers_.width = static_cast<int>((right - left_) * scale_ + 0.5) + 1;
    buffers_.height = static_cast<int>((bottom - top_) * scale_ + 0.5) + 1;
    depth_.resize(static_cast<std::size_t>(buffers_.width) *
                  static_cast<std::size_t>(buffers_.height));
    buffers_.depth = depth_.data();
    clear(buffers_);
    rasterize(scaled, triangles, {}, 0, buffers_);
  }

  /// Whether something lies before the point of a surface whose z changes by at most `slope`
  /// pixels where x and y each change by one.
  bool hides(float x, float y, float z, double slope) const {
    const int column = nearest((x - left_) * scale_, buffers_.width);
    const int row = nearest((y - top_) * scale_, buffers_.height);
    // The buffer has the depth at the centre of its pixel, half a pixel away at most. The rest is
    // for bends of the surface within that pixel.
    const double slack = (slope + 2.0) / scale_;
    return depth_[static_cast<std::size_t>(row) * static_cast<std::size_t>(buffers_.width) +
                  static_cast<std::size_t>(column)] > z + slack;
  }

 private:
  static int nearest(double position, int size) {
    return static_cast<int>(std::clamp(position + 0.5, 0.0, size - 1.0));
  }

  double left_ = 0.0;
  double top_ = 0.0;
  double scale_ = 1.0;  ///< pixels of the buffer for one pixel of the picture
  std::vector<float> depth_;
  RasterBuffers buffers_;
};

/// How a picture's coordinates change over a triangle of the layout.
struct Footprint {
  float x_across = 0.0f;  ///< pixels in x for one texel to the right
  float y_across = 0.0f;
  float x_down = 0.0f;  ///< pixels in x for one texel down
  float y_down = 0.0f;
  double slope = 0.0;   ///< |dz/dx| + |dz/dy| of the triangle in the picture
  bool edge_on = true;  ///< the picture shows it as a line
  int across = 1;       ///< samples that a texel needs across and down
  int down = 1;
};

int sample_count(float x, float y) {
  constexpr float kMost = 64.0f;
  constexpr float kRounding = 0.01f;  // a texel of the size of a pixel needs one sample
  return static_cast<int>(std::ceil(std::clamp(std::sqrt(x * x + y * y) - kRounding, 1.0f, kMost)));
}

/// @param p three points in the picture, x y z
/// @param q three points in the layout, x right and y down in texels (z is not used)
Footprint footprint(const std::array<const float*, 3>& p, const std::array<const float*, 3>& q) {
  const auto edge = [](const std::array<const float*, 3>& points, int corner, int axis) {
    return double{points[static_cast<std::size_t>(corner)][axis]} - points[0][axis];
  };
  Footprint result;
  const double layout = edge(q, 1, 0) * edge(q, 2, 1) - edge(q, 1, 1) * edge(q, 2, 0);
  if (std::isfinite(layout) && layout != 0.0) {
    const auto across = [&](int axis) {
      return static_cast<float>(
          (edge(p, 1, axis) * edge(q, 2, 1) - edge(p, 2, axis) * edge(q, 1, 1)) / layout);
    };
    const auto down = [&](int axis) {
      return static_cast<float>(
          (edge(p, 2, axis) * edge(q, 1, 0) - edge(p, 1, axis) * edge(q, 2, 0)) / layout);
    };
    result.x_across = across(0);
    result.y_across = across(1);
    result.x_down = down(0);
    result.y_down = down(1);
    result.across = sample_count(result.x_across, result.y_across);
    result.down = sample_count(result.x_down, result.y_down);
  }
  const double area = edge(p, 1, 0) * edge(p, 2, 1) - edge(p, 1, 1) * edge(p, 2, 0);
  if (area != 0.0) {
    const double dx = edge(p, 1, 2) * edge(p, 2, 1) - edge(p, 2, 2) * edge(p, 1, 1);
    const double dy = edge(p, 2, 2) * edge(p, 1, 0) - edge(p, 1, 2) * edge(p, 2, 0);
    result.slope = (std::abs(dx) + std::abs(dy)) / std::abs(area);
    result.edge_on = false;
  }
  return result;
}

/// Texels whose colours are still to be looked up, all at once.
class Texels {
 public:
  /// @param colors size x size x channels, where the colours go
  Texels(const ImageView& image, std::uint8_t* colors) : image_(image), colors_(colors) {}

  /// The texel at this place is the mean of the picture over its footprint around (x, y).
  void add(std::size_t place, float x, float y, const Footprint& shape) {
    if (points_.size() / 2 >= kMostPoints) look_up();
    texels_.push_back({place, shape.across * shape.down});
    if (shape.across == 1 && shape.down == 1) {
      points_.push_back(x);
      points_.push_back(y);
      return;
    }
    for (int i = 0; i < shape.down; ++i) {
      const float down = (static_cast<float>(i) + 0.5f) / static_cast<float>(shape.down) - 0.5f;
      for (int j = 0; j < shape.across; ++j) {
        const float across =
            (static_cast<float>(j) + 0.5f) / static_cast<float>(shape.across) - 0.5f;
        points_.push_back(x + across * shape.x_across + down * shape.x_down);
        points_.push_back(y + across * shape.y_across + down * shape.y_down);
      }
    }
  }

  void look_up() {
    samples_.resize(points_.size() / 2 * static_cast<std::size_t>(image_.channels));
    sample_points(image_, points_.data(), 2, points_.size() / 2, samples_.data());
    with_channels(std::ptrdiff_t{image_.channels}, [&](auto channels) {
      const float* sample = samples_.data();
      for (const Texel& texel : texels_) {
        std::uint8_t* const out = colors_ + static_cast<std::ptrdiff_t>(texel.place) * channels;
        if (texel.samples == 1) {
          std::transform(sample, sample + channels, out, rounded);
        } else {
          const float share = 1.0f / static_cast<float>(texel.samples);
          for (std::ptrdiff_t c = 0; c < channels; ++c) {
            float sum = 0.0f;
            for (std::ptrdiff_t i = 0; i < texel.samples; ++i) sum += sample[i * channels + c];
            out[c] = rounded(sum * share);
          }
        }
        sample += texel.samples * channels;
      }
    });
    points_.clear();
    texels_.clear();
  }

 private:
  static constexpr std::size_t kMostPoints = 2048;  // so that all of it stays in a small cache

  struct Texel {
    std::size_t place;
    std::ptrdiff_t samples;
  };

  static std::uint8_t rounded(float value) {
    return static_cast<std::uint8_t>(std::min(value + 0.5f, 255.0f));
  }

  const ImageView& image_;
  std::uint8_t* colors_;
  std::vector<float> points_, samples_;
  std::vector<Texel> texels_;
};

}  // namespace

void sample_bilinear(const ImageView& image, Span<const float> points, int stride,
                     Span<float> out) {
  require_image(image);
  require(stride >= 2, "stride", "at least 2 (x and y)", stride);
  const auto step = static_cast<std::size_t>(stride);
  if (points.size() % step != 0) {
    require(false, "points", std::to_string(stride) + " numbers for each point", points.size(),
            " elements");
  }
  const std::size_t count = points.size() / step;
  const auto channels = static_cast<std::size_t>(image.channels);
  require_size("out", count * channels, out.size());

  sample_points(image, points.data(), step, count, out.data());
}

void uv_texture(const ImageView& image, Span<const float> vertices, Span<const float> uv,
                Span<const std::int32_t> triangles, int size, Span<std::uint8_t> out) {
  require_image(image);
  const std::size_t count = require_vertices(vertices);
  require_size("uv", 2 * count, uv.size());
  require(size > 0, "size", "at least 1", size);
  const std::size_t pixels = static_cast<std::size_t>(size) * static_cast<std::size_t>(size);
  require(pixels <= kMostRasterPixels, "size",
          "at most " + std::to_string(kMostRasterPixels) + " pixels in all", size, " x ", size);
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
  RasterBuffers buffers;
  buffers.height = size;
  buffers.width = size;
  buffers.depth = depth.data();
  clear(buffers);
  std::fill(out.begin(), out.end(), std::uint8_t{0});
  const auto stride = static_cast<std::ptrdiff_t>(static_cast<std::size_t>(size) * channels);
  // Rounded down, as 3DDFA_V2 does.
  rasterize_bytes(flat, triangles, colours, image.channels, buffers,
                  {out.data(), stride, size, channels, 1.0f});
}

void texture_map(const ImageView& image, Span<const float> points, Span<const float> normals,
                 Span<const float> occluders, Span<const float> uv,
                 Span<const std::int32_t> triangles, int size, Span<std::uint8_t> colors,
                 Span<float> visibility) {
  require_image(image);
  const std::size_t count = require_vertices(occluders);
  const auto side = static_cast<std::size_t>(std::max(size, 1));
  const std::size_t looks =
      count > 0 ? points.size() / occluders.size() : visibility.size() / (side * side);
  require_size("points", looks * occluders.size(), points.size());
  require_size("normals", points.size(), normals.size());
  require_size("uv", 2 * count, uv.size());
  require_triangles(triangles, count);
  require_finite("points", points);
  require_finite("occluders", occluders);
  require(size > 0, "size", "at least 1", size);
  const auto channels = static_cast<std::size_t>(image.channels);
  require_size("colors", looks * side * side * channels, colors.size());
  require_size("visibility", looks * side * side, visibility.size());

  constexpr int kCoarsest = 512;
  constexpr int kFinest = 2048;
  const DepthMap depth(occluders, triangles, std::clamp(size, kCoarsest, kFinest));
  std::fill(colors.begin(), colors.end(), std::uint8_t{0});
  std::fill(visibility.begin(), visibility.end(), -1.0f);

  // The layout in texels, at depth 0: where it overlaps itself the first triangle stays.
  const auto scale = static_cast<float>(size);
  std::vector<float> layout(3 * count, 0.0f);
  for (std::size_t i = 0; i < count; ++i) {
    layout[3 * i] = uv[2 * i] * scale - 0.5f;
    layout[3 * i + 1] = (1.0f - uv[2 * i + 1]) * scale - 0.5f;
  }

  const float right = static_cast<float>(image.width) - 0.5f;
  const float bottom = static_cast<float>(image.height) - 0.5f;
  struct Look {
    const float* points;
    const float* normals;
    std::vector<Footprint> footprints;  // of the triangles
    Texels texels;
    float* visibility;
  };
  std::vector<Look> all;
  all.reserve(looks);
  for (std::size_t k = 0; k < looks; ++k) {
    const float* const own_points = points.data() + k * 3 * count;
    std::vector<Footprint> footprints(triangles.size() / 3);
    for (std::size_t t = 0; t < footprints.size(); ++t) {
      std::array<const float*, 3> p{}, q{};
      for (std::size_t i = 0; i < 3; ++i) {
        const auto vertex = static_cast<std::size_t>(triangles[3 * t + i]);
        p[i] = own_points + 3 * vertex;
        q[i] = &layout[3 * vertex];
      }
      footprints[t] = footprint(p, q);
    }
    all.push_back({own_points, normals.data() + k * 3 * count, std::move(footprints),
                   Texels(image, colors.data() + k * side * side * channels),
                   visibility.data() + k * side * side});
  }

  // Strip by strip, so that the buffers of a large texture stay small.
  constexpr int kStrip = 64;
  const std::size_t strip_pixels = side * static_cast<std::size_t>(std::min(kStrip, size));
  std::vector<float> strip_depth(strip_pixels), weights(3 * strip_pixels);
  std::vector<std::int32_t> owners(strip_pixels);
  RasterBuffers buffers;
  buffers.width = size;
  buffers.depth = strip_depth.data();
  buffers.triangle = owners.data();
  buffers.barycentric = weights.data();
  for (int top = 0; top < size; top += kStrip) {
    buffers.top = top;
    buffers.height = std::min(kStrip, size - top);
    clear(buffers);
    rasterize(layout, triangles, {}, 0, buffers);
    const std::size_t first = static_cast<std::size_t>(top) * side;
    const std::size_t pixels = static_cast<std::size_t>(buffers.height) * side;
    for (Look& look : all) {
      for (std::size_t i = 0; i < pixels; ++i) {
        if (owners[i] < 0) continue;
        const auto triangle = static_cast<std::size_t>(owners[i]);
        std::array<float, 3> point{}, normal{};
        for (std::size_t corner = 0; corner < 3; ++corner) {
          const auto vertex = static_cast<std::size_t>(triangles[3 * triangle + corner]);
          const float weight = weights[3 * i + corner];
          for (std::size_t axis = 0; axis < 3; ++axis) {
            point[axis] += weight * look.points[3 * vertex + axis];
            normal[axis] += weight * look.normals[3 * vertex + axis];
          }
        }
        const Footprint& shape = look.footprints[triangle];
        look.texels.add(first + i, point[0], point[1], shape);
        const bool inside =
            point[0] >= -0.5f && point[1] >= -0.5f && point[0] <= right && point[1] <= bottom;
        const bool seen = inside && normal[2] > 0.0f && !shape.edge_on &&
                          !depth.hides(point[0], point[1], point[2], shape.slope);
        const float length =
            std::sqrt(normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2]);
        look.visibility[first + i] = seen ? normal[2] / length : 0.0f;
      }
      look.texels.look_up();
    }
  }
}

}  // namespace threedfa
