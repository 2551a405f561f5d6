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

/// Of a small triangle, whose box has at most kSmall + 1 columns and rows of pixel centres. Small
/// triangles are drawn in quads, many at once, others row by row.
constexpr std::size_t kMostQuads =
    (simd::TriangleBatch::kSmall / 2 + 1) * (simd::TriangleBatch::kSmall / 2 + 1);

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

/// The pixels of one of the 16 sets of four.
struct CoveredPixels {
  std::uint16_t pixels[4];
  std::uint16_t count;
};

constexpr std::array<CoveredPixels, 16> covered_pixels() {
  std::array<CoveredPixels, 16> sets{};
  for (std::size_t set = 0; set < 16; ++set) {
    for (std::uint16_t pixel = 0; pixel < 4; ++pixel) {
      if ((set >> pixel & 1) != 0) sets[set].pixels[sets[set].count++] = pixel;
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
    for (first_ = 0; first_ < mesh_.triangle_count; first_ += kBatch) {
      paint_batch(std::min(kBatch, mesh_.triangle_count - first_));
    }
  }

 private:
  static constexpr std::size_t kBatch = simd::TriangleBatch::kMost;
  static constexpr std::size_t kQuads = simd::PixelQuads::kMost;

  const std::int32_t* corners_of(std::int32_t triangle) const {
    return mesh_.triangles + 3 * static_cast<std::size_t>(triangle);
  }
  const float* vertex(std::int32_t index) const {
    return mesh_.vertices + 3 * static_cast<std::size_t>(index);
  }
  std::int32_t triangle_in(std::size_t slot) const {
    return static_cast<std::int32_t>(first_ + slot);
  }
  simd::Triangle exact_triangle(std::size_t slot) const {
    const std::int32_t* const corners = corners_of(triangle_in(slot));
    const float *const v0 = vertex(corners[0]), *const v1 = vertex(corners[1]),
                       *const v2 = vertex(corners[2]);
    return simd::make_triangle(v0[0], v0[1], v0[2], v1[0], v1[1], v1[2], v2[0], v2[1], v2[2]);
  }

  void paint_batch(std::size_t count) {
    loops_.set_up_triangles(mesh_, first_, count, window_, batch_, quads_);
    // Without a branch: whether a small triangle holds a pixel's centre cannot be foretold.
    std::uint8_t with_pixels[kBatch];
    std::size_t found = 0;
    for (std::size_t slot = 0; slot < count; ++slot) {
      quads_.slot[slot] = static_cast<std::int32_t>(slot);
      with_pixels[found] = static_cast<std::uint8_t>(slot);
      found += quads_.wanted[slot] != 0;
    }
    // Quads in the order of their triangles; those from kBatch on are still to be looked at.
    quad_count_ = 0;
    last_ = kBatch;
    for (std::size_t k = 0; k < found; ++k) {
      const std::size_t slot = with_pixels[k];
      if (batch_.small[slot] == 0) {
        paint_quads();
        paint_rows(slot);
        continue;
      }
      if (last_ + kMostQuads > kQuads) paint_quads();
      const int columns = batch_.right[slot] - batch_.left[slot] + 1;
      const int rows = batch_.bottom[slot] - batch_.top[slot] + 1;
      order_[quad_count_++] = static_cast<std::uint16_t>(slot);
      if ((columns > 2) | (rows > 2)) add_quads(slot, columns, rows);
    }
    paint_quads();
  }

  /// Covers the box of a triangle with quads, but for the first one.
  void add_quads(std::size_t slot, int columns, int rows) {
    for (int y = 0; y < rows; y += 2) {
      for (int x = y == 0 ? 2 : 0; x < columns; x += 2) {
        const std::size_t quad = last_++;
        order_[quad_count_++] = static_cast<std::uint16_t>(quad);
        quads_.slot[quad] = static_cast<std::int32_t>(slot);
        quads_.left[quad] = batch_.left[slot] + x;
        quads_.top[quad] = batch_.top[slot] + y;
        quads_.wanted[quad] =
            (x + 1 < columns ? 0b1111 : 0b0101) & (y + 1 < rows ? 0b1111 : 0b0011);
      }
    }
  }

  void paint_quads() {
    loops_.cover_quads(batch_, kBatch, last_, quads_);
    paint_pixels(find_covered());
    quad_count_ = 0;
    last_ = kBatch;
  }

  /// Writes into places_ where in the arrays of quads_ the covered pixels are; returns how many.
  std::size_t find_covered() {
    std::size_t count = 0;
    for (std::size_t k = 0; k < quad_count_; ++k) {
      const std::size_t quad = order_[k];
      if (quads_.covered[quad] > 0b1111) cover_exactly(quad);
      // Four are written and those that are not covered overwritten: without a branch, as above.
      const CoveredPixels& pixels = kCoveredPixels[static_cast<std::size_t>(quads_.covered[quad])];
      for (std::size_t n = 0; n < 4; ++n) {
        places_[count + n] = static_cast<std::uint16_t>(pixels.pixels[n] * kQuads + quad);
      }
      count += pixels.count;
    }
    return count;
  }

  /// Paints those of the first `count` places that are not hidden, in this order.
  void paint_pixels(std::size_t count) {
    const RasterBuffers buffers = buffers_;  // which nothing below can change
    for (std::size_t k = 0; k < count; ++k) {
      const std::size_t place = places_[k], quad = place % kQuads, pixel = place / kQuads;
      const int x = quads_.left[quad] + static_cast<int>(pixel % 2);
      const int y = quads_.top[quad] + static_cast<int>(pixel / 2);
      const float weights[] = {quads_.weights[0][place], quads_.weights[1][place],
                               quads_.weights[2][place]};
      const auto slot = static_cast<std::size_t>(quads_.slot[quad]);
      paint_pixel(buffers, triangle_in(slot), x, y, quads_.depth[place], weights);
    }
  }

  /// Looks at those pixels of a quad again, in exact arithmetic, that single precision left open.
  void cover_exactly(std::size_t quad) {
    const simd::Triangle triangle = exact_triangle(static_cast<std::size_t>(quads_.slot[quad]));
    const simd::Edge* const edges = triangle.edges;
    std::int32_t& covered = quads_.covered[quad];
    for (std::size_t pixel = 0; pixel < 4; ++pixel) {
      if ((covered >> 4 >> pixel & 1) == 0) continue;
      const double x = quads_.left[quad] + static_cast<int>(pixel % 2);
      const double y = quads_.top[quad] + static_cast<int>(pixel / 2);
      const simd::Fragment fragment =
          simd::fragment_at(triangle, simd::value_at(edges[0], x, simd::value_in_row(edges[0], y)),
                            simd::value_at(edges[1], x, simd::value_in_row(edges[1], y)),
                            simd::value_at(edges[2], x, simd::value_in_row(edges[2], y)));
      covered |= static_cast<std::int32_t>(fragment.inside) << pixel;
      const std::size_t place = kQuads * pixel + quad;
      for (std::size_t k = 0; k < 3; ++k) quads_.weights[k][place] = fragment.weights[k];
      quads_.depth[place] = fragment.depth;
    }
    covered &= 0b1111;
  }

  void paint_rows(std::size_t slot) {
    const simd::Triangle triangle = exact_triangle(slot);
    if (!triangle.drawn) return;
    for (int y = batch_.top[slot]; y <= batch_.bottom[slot]; ++y) {
      int first = batch_.left[slot], last = batch_.right[slot];
      for (const simd::Edge& edge : triangle.edges) {
        narrow(edge, simd::value_in_row(edge, y), first, last);
      }
      constexpr int kMost = simd::PixelRow::kMost;
      for (int x = first; x <= last; x += kMost) {
        const auto count = static_cast<std::size_t>(std::min(kMost, last - x + 1));
        loops_.cover_row(triangle, y, x, count, row_);
        for (std::size_t n = 0; n < count; ++n) {
          if (row_.covered[n] == 0) continue;
          const float weights[] = {row_.weights[0][n], row_.weights[1][n], row_.weights[2][n]};
          paint_pixel(buffers_, triangle_in(slot), x + static_cast<int>(n), y, row_.depth[n],
                      weights);
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
    if (buffers.image != nullptr) paint_attributes(triangle, pixel, weights);
  }

  void paint_attributes(std::int32_t triangle, std::size_t pixel, const float* weights) const {
    const std::int32_t* const corners = corners_of(triangle);
    const std::size_t channels = mesh_.channels;
    const float* const c0 = mesh_.attributes + channels * static_cast<std::size_t>(corners[0]);
    const float* const c1 = mesh_.attributes + channels * static_cast<std::size_t>(corners[1]);
    const float* const c2 = mesh_.attributes + channels * static_cast<std::size_t>(corners[2]);
    float* const colour = buffers_.image + channels * pixel;
    for (std::size_t c = 0; c < channels; ++c) {
      // So that equal attributes stay as they are; the weights' sum is a little off 1.
      colour[c] = c0[c] + (weights[1] * (c1[c] - c0[c]) + weights[2] * (c2[c] - c0[c]));
    }
  }

  const Mesh& mesh_;
  const RasterBuffers& buffers_;
  const simd::PixelWindow window_;
  const simd::Loops& loops_ = simd::loops();
  std::size_t first_ = 0;  // triangle of the batch
  simd::TriangleBatch batch_;
  simd::PixelQuads quads_;
  std::size_t last_ = kBatch;    // behind the last of quads_
  std::uint16_t order_[kQuads];  // of quads, as their triangles come
  std::size_t quad_count_ = 0;   // in order_
  std::uint16_t places_[4 * kQuads + 4];
  simd::PixelRow row_;
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
