#include "threedfa/rasterizer.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>

#include "simd/loops.hpp"
#include "simd/triangle.hpp"
#include "triangle_indices.hpp"

namespace threedfa {
namespace {

/// Triangles with narrower boxes are drawn in blocks of 2 x 2 pixels, many at once. In wider ones
/// each row is cut down to the triangle first.
constexpr int kWide = 16;

struct Mesh : simd::MeshView {
  std::size_t triangle_count;
  const float* attributes;
  std::size_t channels;
};

/// Cuts first..last down to the pixels of a row that can be inside the edge, give or take one.
void narrow(const simd::Edge& edge, double row_value, int& first, int& last) {
  if (edge.a == 0.0) {
    return;
  }
  const double offset = row_value / edge.a;
  const double crossing = edge.x - offset;
  // One pixel, plus what rounding may do to a crossing made of huge numbers.
  const double margin = 1.0 + 1e-14 * (std::abs(edge.x) + std::abs(offset));
  if (edge.a > 0.0) {
    const double from = crossing - margin;
    if (from > first) {
      first = from > last ? last + 1 : static_cast<int>(from);
    }
  } else {
    const double to = crossing + margin;
    if (to < last) {
      last = to < first ? first - 1 : static_cast<int>(to);
    }
  }
}

/// Where PixelQuads keeps the covered pixels of block 0, for each of the 16 sets of them.
struct CoveredPixels {
  std::uint16_t places[4];
  std::uint16_t count;
};

constexpr std::array<CoveredPixels, 16> covered_pixels() {
  std::array<CoveredPixels, 16> sets{};
  for (std::size_t set = 0; set < 16; ++set) {
    for (std::size_t pixel = 0; pixel < 4; ++pixel) {
      if ((set >> pixel & 1) == 0) continue;
      sets[set].places[sets[set].count++] =
          static_cast<std::uint16_t>(simd::PixelQuads::kMost * pixel);
    }
  }
  return sets;
}

constexpr std::array<CoveredPixels, 16> kCoveredPixels = covered_pixels();

/// Draws triangles in the order in which they come.
class Painter {
 public:
  Painter(const Mesh& mesh, const RasterBuffers& buffers)
      : mesh_(mesh),
        buffers_(buffers),
        window_{buffers.left, buffers.left + buffers.width - 1, buffers.top,
                buffers.top + buffers.height - 1} {}

  void paint() {
    for (std::size_t begin = 0; begin < mesh_.triangle_count; begin += kBatch) {
      paint_batch(begin, std::min(kBatch, mesh_.triangle_count - begin));
    }
    paint_quads();
  }

 private:
  static constexpr std::size_t kBatch = simd::PixelBoxes::kMost;
  static constexpr std::size_t kQuads = simd::PixelQuads::kMost;

  const std::int32_t* corners_of(std::int32_t triangle) const {
    return mesh_.triangles + 3 * static_cast<std::size_t>(triangle);
  }
  const float* vertex(std::int32_t index) const {
    return mesh_.vertices + 3 * static_cast<std::size_t>(index);
  }
  void paint_batch(std::size_t begin, std::size_t count) {
    loops_.find_boxes(mesh_, begin, count, window_, boxes_);
    // Without a branch: whether a small triangle holds a pixel's centre cannot be foretold.
    std::uint8_t with_pixels[kBatch];
    std::size_t found = 0;
    for (std::size_t i = 0; i < count; ++i) {
      with_pixels[found] = static_cast<std::uint8_t>(i);
      found += (boxes_.left[i] <= boxes_.right[i]) & (boxes_.top[i] <= boxes_.bottom[i]);
    }
    for (std::size_t k = 0; k < found; ++k) {
      const std::size_t i = with_pixels[k];
      if (boxes_.right[i] - boxes_.left[i] < kWide) {
        add_quads(static_cast<std::int32_t>(begin + i), i);
      } else {
        paint_quads();
        paint_rows(static_cast<std::int32_t>(begin + i), i);
      }
    }
  }

  /// Covers the box of a triangle, number `i` of the batch, with blocks.
  void add_quads(std::int32_t triangle, std::size_t i) {
    const int right = boxes_.right[i], bottom = boxes_.bottom[i];
    for (int y = boxes_.top[i]; y <= bottom; y += 2) {
      for (int x = boxes_.left[i]; x <= right; x += 2) {
        if (quad_count_ == kQuads) paint_quads();
        const std::size_t n = quad_count_++;
        quads_.triangle[n] = triangle;
        quads_.left[n] = x;
        quads_.top[n] = y;
        quads_.wanted[n] = (x < right ? 0b1111 : 0b0101) & (y < bottom ? 0b1111 : 0b0011);
      }
    }
  }

  void paint_quads() {
    loops_.cover_quads(mesh_, quad_count_, quads_);
    // Where in the arrays of quads_ the covered pixels are, block after block, so triangle after
    // triangle. Four are written for each block and those that are not covered overwritten:
    // without a branch, as above.
    std::uint16_t places[4 * kQuads];
    std::size_t count = 0;
    for (std::size_t n = 0; n < quad_count_; ++n) {
      const std::size_t covered = static_cast<std::size_t>(quads_.covered[n]);
      const CoveredPixels& pixels = kCoveredPixels[covered];
      for (std::size_t k = 0; k < 4; ++k) {
        places[count + k] = static_cast<std::uint16_t>(pixels.places[k] + n);
      }
      count += pixels.count;
    }
    const RasterBuffers buffers = buffers_;  // which nothing below can change
    for (std::size_t k = 0; k < count; ++k) {
      const std::size_t place = places[k], n = place % kQuads, pixel = place / kQuads;
      const int x = quads_.left[n] + static_cast<int>(pixel % 2);
      const int y = quads_.top[n] + static_cast<int>(pixel / 2);
      const float weights[] = {quads_.weights[0][place], quads_.weights[1][place],
                               quads_.weights[2][place]};
      paint_pixel(buffers, quads_.triangle[n], x, y, quads_.depth[place], weights);
    }
    quad_count_ = 0;
  }

  void paint_rows(std::int32_t index, std::size_t i) {
    const std::int32_t* const corners = corners_of(index);
    const float *const v0 = vertex(corners[0]), *const v1 = vertex(corners[1]),
                       *const v2 = vertex(corners[2]);
    const simd::Triangle triangle =
        simd::make_triangle(v0[0], v0[1], v0[2], v1[0], v1[1], v1[2], v2[0], v2[1], v2[2]);
    if (!triangle.drawn) return;
    simd::PixelRow row;
    for (int y = boxes_.top[i]; y <= boxes_.bottom[i]; ++y) {
      int first = boxes_.left[i], last = boxes_.right[i];
      for (const simd::Edge& edge : triangle.edges) {
        narrow(edge, simd::value_in_row(edge, y), first, last);
      }
      constexpr int kMost = simd::PixelRow::kMost;
      for (int x = first; x <= last; x += kMost) {
        const auto count = static_cast<std::size_t>(std::min(kMost, last - x + 1));
        loops_.cover_row(triangle, y, x, count, row);
        for (std::size_t n = 0; n < count; ++n) {
          if (row.covered[n] == 0) continue;
          const float weights[] = {row.weights[0][n], row.weights[1][n], row.weights[2][n]};
          paint_pixel(buffers_, index, x + static_cast<int>(n), y, row.depth[n], weights);
        }
      }
    }
  }

  void paint_pixel(const RasterBuffers& buffers, std::int32_t triangle, int x, int y, float depth,
                   const float* weights) const {
    const std::size_t pixel =
        static_cast<std::size_t>(y - buffers.top) * static_cast<std::size_t>(buffers.width) +
        static_cast<std::size_t>(x - buffers.left);
    if (!(depth > buffers.depth[pixel])) return;
    buffers.depth[pixel] = depth;
    if (buffers.triangle != nullptr) buffers.triangle[pixel] = triangle;
    if (buffers.barycentric != nullptr) {
      for (std::size_t k = 0; k < 3; ++k) buffers.barycentric[3 * pixel + k] = weights[k];
    }
    if (buffers.image != nullptr) paint_attributes(triangle, buffers.image, pixel, weights);
  }

  void paint_attributes(std::int32_t triangle, float* image, std::size_t pixel,
                        const float* weights) const {
    const std::int32_t* const corners = corners_of(triangle);
    const std::size_t channels = mesh_.channels;
    const float* const c0 = mesh_.attributes + channels * static_cast<std::size_t>(corners[0]);
    const float* const c1 = mesh_.attributes + channels * static_cast<std::size_t>(corners[1]);
    const float* const c2 = mesh_.attributes + channels * static_cast<std::size_t>(corners[2]);
    float* const colour = image + channels * pixel;
    for (std::size_t c = 0; c < channels; ++c) {
      colour[c] = weights[0] * c0[c] + weights[1] * c1[c] + weights[2] * c2[c];
    }
  }

  const Mesh& mesh_;
  const RasterBuffers& buffers_;
  const simd::PixelWindow window_;
  const simd::Loops& loops_ = simd::loops();
  simd::PixelBoxes boxes_;
  // Blocks that wait to be painted.
  simd::PixelQuads quads_;
  std::size_t quad_count_ = 0;
};

std::size_t require_buffers(const RasterBuffers& buffers) {
  constexpr int kMost = 1 << 24;  // up to there each whole number is a float
  const auto fits = [](int first, int size) {
    return first >= 0 && size >= 0 && first <= kMost && size <= kMost - first;
  };
  if (!fits(buffers.top, buffers.height) || !fits(buffers.left, buffers.width)) {
    require(false, "buffers", "left, top and sizes in 0.." + std::to_string(kMost),
            std::to_string(buffers.height) + " x " + std::to_string(buffers.width) + " at (" +
                std::to_string(buffers.left) + ", " + std::to_string(buffers.top) + ")");
  }
  const std::size_t pixels =
      static_cast<std::size_t>(buffers.height) * static_cast<std::size_t>(buffers.width);
  require(pixels == 0 || buffers.depth != nullptr, "buffers", "a depth buffer", "null");
  return pixels;
}

}  // namespace

void clear(const RasterBuffers& buffers) {
  const std::size_t pixels = require_buffers(buffers);
  std::fill_n(buffers.depth, pixels, -std::numeric_limits<float>::infinity());
  if (buffers.triangle != nullptr) {
    std::fill_n(buffers.triangle, pixels, -1);
  }
  if (buffers.barycentric != nullptr) {
    std::fill_n(buffers.barycentric, 3 * pixels, 0.0f);
  }
}

void rasterize(Span<const float> vertices, Span<const std::int32_t> triangles,
               Span<const float> attributes, int channels, const RasterBuffers& buffers) {
  const std::size_t pixels = require_buffers(buffers);
  const std::size_t vertex_count = require_vertices(vertices);
  require_triangles(triangles, vertex_count);
  const std::size_t triangle_count = triangles.size() / 3;
  constexpr std::size_t kMost = std::numeric_limits<std::int32_t>::max() / 3;
  if (triangle_count > kMost || vertex_count > kMost) {
    require(false, "mesh", "at most " + std::to_string(kMost) + " vertices and triangles",
            std::to_string(vertex_count) + " and " + std::to_string(triangle_count));
  }
  std::size_t attribute_count = 0;
  if (buffers.image != nullptr) {
    require(channels > 0, "channels", "at least 1", std::to_string(channels));
    attribute_count = vertex_count * static_cast<std::size_t>(channels);
  }
  require_size("attributes", attribute_count, attributes.size());
  if (pixels == 0) {
    return;
  }

  const Mesh mesh{{vertices.data(), triangles.data()},
                  triangle_count,
                  attributes.data(),
                  static_cast<std::size_t>(std::max(channels, 0))};
  Painter(mesh, buffers).paint();
}

}  // namespace threedfa
