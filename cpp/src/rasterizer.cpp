#include "threedfa/rasterizer.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>

#include "channels.hpp"
#include "simd/loops.hpp"
#include "simd/triangle.hpp"
#include "triangle_indices.hpp"

namespace threedfa {
namespace {

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

/// Draws triangles so that of equal depths the first triangle's stays.
class Painter {
 public:
  Painter(const Mesh& mesh, const RasterBuffers& buffers)
      : mesh_(mesh),
        buffers_(buffers),
        window_{buffers.left, buffers.left + buffers.width - 1, buffers.top,
                buffers.top + buffers.height - 1},
        grid_{buffers.left, buffers.top, buffers.width} {}

  void paint() {
    for (first_ = 0; first_ < mesh_.triangle_count; first_ += kBatch) {
      paint_batch(std::min(kBatch, mesh_.triangle_count - first_));
    }
  }

 private:
  static constexpr std::size_t kBatch = simd::TriangleBatch::kMost;
  static constexpr std::int32_t kHidden = -1;  // in place of the slot of a pixel in the list

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
    loops_.set_up_triangles(mesh_, first_, count, window_, batch_);
    // Without a branch: how large a triangle is cannot be foretold.
    std::uint8_t larger[kBatch + 1];
    std::size_t larger_count = 0;
    for (std::size_t slot = 0; slot < count; ++slot) {
      larger[larger_count] = static_cast<std::uint8_t>(slot);
      larger_count += batch_.larger[slot] != 0;
    }
    // Successive triangles are painted together as far as their pixels fit the list.
    constexpr std::size_t kMost = simd::PixelList::kMost - 4 * kBatch;
    std::size_t begin = 0, first = 0, pixels = 0;
    for (std::size_t k = 0; k < larger_count; ++k) {
      const std::size_t slot = larger[k];
      const bool small = batch_.small[slot] != 0;
      const std::size_t box = small ? box_size(slot) : 0;
      if (!small || pixels + box > kMost) {
        paint_some(begin, slot, larger + first, larger + k);
        begin = slot;
        first = k;
        pixels = 0;
      }
      pixels += box;
      if (!small) {
        paint_rows(slot);
        begin = slot + 1;
        first = k + 1;
      }
    }
    paint_some(begin, count, larger + first, larger + larger_count);
  }

  std::size_t box_size(std::size_t slot) const {
    return static_cast<std::size_t>(batch_.right[slot] - batch_.left[slot] + 1) *
           static_cast<std::size_t>(batch_.bottom[slot] - batch_.top[slot] + 1);
  }

  /// Paints the triangles `begin` to `end` - 1, among them those with larger boxes.
  void paint_some(std::size_t begin, std::size_t end, const std::uint8_t* larger,
                  const std::uint8_t* larger_end) {
    list_.count = list_.unsure_count = 0;
    loops_.list_covered(batch_, begin, end, grid_, list_);
    loops_.list_boxes(batch_, larger, static_cast<std::size_t>(larger_end - larger), grid_, list_);
    for (std::size_t k = 0; k < list_.unsure_count; ++k) look_exactly(k);
    const RasterBuffers buffers = buffers_;  // which nothing below can change
    for (std::size_t k = 0; k < list_.count; ++k) {
      const auto pixel = static_cast<std::size_t>(list_.pixel[k]);
      const float depth = list_.depth[k], there = buffers.depth[pixel];
      if (!(depth > there) && !(depth == there && paints_over(k))) {
        list_.slot[k] = kHidden;
        continue;
      }
      const float weights[] = {list_.weights[0][k], list_.weights[1][k], list_.weights[2][k]};
      const std::int32_t triangle = triangle_in(static_cast<std::size_t>(list_.slot[k]));
      paint_pixel(buffers, triangle, pixel, depth, weights);
    }
    if (buffers.image == nullptr) return;
    with_channels(mesh_.channels, [this](auto channels) { paint_listed(channels); });
  }

  /// Paints the attributes of the pixels in the list that are not hidden.
  template <class Channels>
  void paint_listed(Channels channels) const {
    for (std::size_t k = 0; k < list_.count; ++k) {
      if (list_.slot[k] == kHidden) continue;
      const float weights[] = {list_.weights[0][k], list_.weights[1][k], list_.weights[2][k]};
      paint_attributes(triangle_in(static_cast<std::size_t>(list_.slot[k])),
                       static_cast<std::size_t>(list_.pixel[k]), weights, channels);
    }
  }

  /// Whether pixel `k` of the list, as deep as what is there, comes from a triangle before that
  /// one's: the list is not in their order.
  bool paints_over(std::size_t k) const {
    for (std::size_t n = k; n-- > 0;) {
      if (list_.pixel[n] == list_.pixel[k] && list_.slot[n] != kHidden) {
        return list_.slot[k] < list_.slot[n];
      }
    }
    return false;
  }

  /// Adds an unsure pixel to the list if it is inside.
  void look_exactly(std::size_t unsure) {
    const std::int32_t pixel = list_.unsure_pixel[unsure], slot = list_.unsure_slot[unsure];
    const simd::Triangle triangle = exact_triangle(static_cast<std::size_t>(slot));
    const simd::Edge* const edges = triangle.edges;
    const double x = grid_.left + pixel % grid_.width, y = grid_.top + pixel / grid_.width;
    const simd::Fragment fragment =
        simd::fragment_at(triangle, simd::value_at(edges[0], x, simd::value_in_row(edges[0], y)),
                          simd::value_at(edges[1], x, simd::value_in_row(edges[1], y)),
                          simd::value_at(edges[2], x, simd::value_in_row(edges[2], y)));
    if (!fragment.inside) return;
    const std::size_t place = list_.count++;
    list_.pixel[place] = pixel;
    list_.slot[place] = slot;
    for (std::size_t k = 0; k < 3; ++k) list_.weights[k][place] = fragment.weights[k];
    list_.depth[place] = fragment.depth;
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
          const std::size_t pixel = pixel_at(x + static_cast<int>(n), y);
          if (!(row_.depth[n] > buffers_.depth[pixel])) continue;
          paint_pixel(buffers_, triangle_in(slot), pixel, row_.depth[n], weights);
          if (buffers_.image == nullptr) continue;
          paint_attributes(triangle_in(slot), pixel, weights, mesh_.channels);
        }
      }
    }
  }

  std::size_t pixel_at(int x, int y) const {
    return static_cast<std::size_t>(y - buffers_.top) * static_cast<std::size_t>(buffers_.width) +
           static_cast<std::size_t>(x - buffers_.left);
  }

  static void paint_pixel(const RasterBuffers& buffers, std::int32_t triangle, std::size_t pixel,
                          float depth, const float* weights) {
    buffers.depth[pixel] = depth;
    if (buffers.triangle != nullptr) buffers.triangle[pixel] = triangle;
    if (buffers.barycentric != nullptr) {
      for (std::size_t k = 0; k < 3; ++k) buffers.barycentric[3 * pixel + k] = weights[k];
    }
  }

  template <class Channels>
  void paint_attributes(std::int32_t triangle, std::size_t pixel, const float* weights,
                        Channels channels) const {
    const std::int32_t* const corners = corners_of(triangle);
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
  const simd::PixelGrid grid_;
  const simd::Loops& loops_ = simd::loops();
  std::size_t first_ = 0;        // triangle of the batch
  simd::TriangleBatch batch_{};  // what was never set up is looked at, too, and ignored
  simd::PixelList list_;
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
  if (pixels > kMostRasterPixels) {  // see PixelGrid
    require(false, "buffers", "at most 2^30 pixels", std::to_string(pixels));
  }
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
