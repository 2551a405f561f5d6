#include "threedfa/rasterizer.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>

#include "rasterize_bytes.hpp"
#include "simd/loops.hpp"
#include "simd/triangle.hpp"
#include "triangle_indices.hpp"

namespace threedfa {
namespace {

struct Mesh : simd::MeshView {
  std::size_t triangle_count;
  simd::Attributes attributes;
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
  /// @param bytes also gets the attributes; may be null
  Painter(const Mesh& mesh, const RasterBuffers& buffers, const simd::ByteTarget* bytes)
      : mesh_(mesh),
        buffers_(buffers),
        bytes_(bytes),
        window_{buffers.left, buffers.left + buffers.width - 1, buffers.top,
                buffers.top + buffers.height - 1},
        grid_{buffers.left, buffers.top, buffers.width} {}

  void paint() {
    for (std::size_t first = 0; first < mesh_.triangle_count; first += kBatch) {
      paint_batch(first, std::min(kBatch, mesh_.triangle_count - first));
    }
    paint_list();
  }

 private:
  static constexpr std::size_t kBatch = simd::TriangleBatch::kMost;
  static constexpr std::size_t kMostSmall = 16 * kBatch;  // places that small ones take
  static constexpr std::size_t kMostMedium =
      simd::TriangleBatch::kMostPixels * simd::TriangleBatch::kMostPixels;
  static_assert(kMostSmall + kMostMedium <= simd::FragmentList::kMost);

  const std::int32_t* corners_of(std::int32_t triangle) const {
    return mesh_.triangles + 3 * static_cast<std::size_t>(triangle);
  }
  const float* vertex(std::int32_t index) const {
    return mesh_.vertices + 3 * static_cast<std::size_t>(index);
  }
  simd::Triangle exact_triangle(std::int32_t triangle) const {
    const std::int32_t* const corners = corners_of(triangle);
    const float *const v0 = vertex(corners[0]), *const v1 = vertex(corners[1]),
                       *const v2 = vertex(corners[2]);
    return simd::make_triangle(v0[0], v0[1], v0[2], v1[0], v1[1], v1[2], v2[0], v2[1], v2[2]);
  }

  void paint_batch(std::size_t first, std::size_t count) {
    loops_.set_up_triangles(mesh_, first, count, window_, grid_, batch_);
    // Successive triangles are covered together as far as their pixels fit the list.
    const std::size_t room = simd::FragmentList::kMost - small_places();
    std::size_t begin = 0, other = 0, places = 0;
    for (std::size_t k = 0; k < batch_.other_count; ++k) {
      const auto slot = static_cast<std::size_t>(batch_.others[k]);
      const bool large = batch_.kind[slot] == simd::TriangleBatch::kLarge;
      const std::size_t more = large ? 0 : places_of(slot);
      if (large || places + more > room) {
        cover(begin, slot, other, k, places);
        begin = slot;
        other = k;
        places = 0;
      }
      places += more;
      if (large) {
        cover_rows(slot);
        begin = slot + 1;
        other = k + 1;
      }
    }
    cover(begin, count, other, batch_.other_count, places);
  }

  /// How many places of the list the small triangles of a batch take.
  std::size_t small_places() const { return batch_.any_small ? kMostSmall : 0; }

  /// How many places a triangle of middle size takes.
  std::size_t places_of(std::size_t slot) const {
    return 16 *
           static_cast<std::size_t>((batch_.columns[slot] / 4 + 1) * (batch_.rows[slot] / 4 + 1));
  }

  /// Adds the triangles `begin` to `end` - 1 to the list; those of middle size among them are the
  /// others `other` to `other_end` - 1, which take `places`.
  void cover(std::size_t begin, std::size_t end, std::size_t other, std::size_t other_end,
             std::size_t places) {
    if (list_.size + small_places() + places > simd::FragmentList::kMost) paint_list();
    if (batch_.any_small) loops_.cover_small(batch_, begin, end, grid_, list_);
    loops_.cover_medium(batch_, batch_.others + other, other_end - other, grid_, list_);
  }

  /// Paints what is in the list, and empties it.
  void paint_list() {
    for (std::size_t k = 0; k < list_.unsure_count; ++k) look_exactly(list_.unsure[k]);
    const RasterBuffers buffers = buffers_;  // which nothing below can change
    std::int32_t* const shown = list_.inside;
    std::size_t count = 0;
    std::size_t seen = 0;      // how many of those shown `latest` knows
    std::int32_t latest = -1;  // triangle among them
    for (std::size_t k = 0; k < list_.inside_count; ++k) {
      const std::int32_t place = list_.inside[k];
      const auto pixel = static_cast<std::size_t>(list_.pixel[place]);
      const float depth = list_.depth[place], there = buffers.depth[pixel];
      if (!(depth > there)) {
        if (depth != there) continue;
        for (; seen < count; ++seen) latest = std::max(latest, list_.triangle[shown[seen]]);
        if (list_.triangle[place] >= latest || !paints_over(place, count)) continue;
      }
      buffers.depth[pixel] = depth;
      shown[count++] = place;
      if (buffers.triangle != nullptr) buffers.triangle[pixel] = list_.triangle[place];
      if (buffers.barycentric != nullptr) {
        // One by one: of an array, written in three parts, compilers read two at once, too early.
        const float w0 = list_.weights[0][place], w1 = list_.weights[1][place];
        const float w2 = list_.weights[2][place];
        float* const weights = buffers.barycentric + 3 * pixel;
        weights[0] = w0;
        weights[1] = w1;
        weights[2] = w2;
      }
    }
    if (buffers.image != nullptr) {
      loops_.paint_attributes(list_, shown, count, mesh_.attributes, buffers.image);
    }
    if (bytes_ != nullptr && count > 0) {
      loops_.paint_bytes(list_, shown, count, mesh_.attributes, *bytes_);
    }
    list_.size = list_.inside_count = list_.unsure_count = 0;
  }

  /// Whether what is at a place of the list, as deep as what its pixel shows, comes from a triangle
  /// before that one: the list is not in their order. `count`: how many places are shown so far.
  bool paints_over(std::int32_t place, std::size_t count) const {
    while (count-- > 0) {
      const std::int32_t other = list_.inside[count];
      if (list_.pixel[other] == list_.pixel[place]) {
        return list_.triangle[place] < list_.triangle[other];
      }
    }
    return false;
  }

  /// Adds what is at an unsure place to what is inside if it is.
  void look_exactly(std::int32_t unsure) {
    const auto place = static_cast<std::size_t>(unsure);
    const std::int32_t pixel = list_.pixel[place];
    const simd::Triangle triangle = exact_triangle(list_.triangle[place]);
    const simd::Edge* const edges = triangle.edges;
    const double x = grid_.left + pixel % grid_.width, y = grid_.top + pixel / grid_.width;
    const simd::Fragment fragment =
        simd::fragment_at(triangle, simd::value_at(edges[0], x, simd::value_in_row(edges[0], y)),
                          simd::value_at(edges[1], x, simd::value_in_row(edges[1], y)),
                          simd::value_at(edges[2], x, simd::value_in_row(edges[2], y)));
    if (!fragment.inside) return;
    list_.inside[list_.inside_count++] = unsure;
    for (std::size_t k = 0; k < 3; ++k) list_.weights[k][place] = fragment.weights[k];
    list_.depth[place] = fragment.depth;
  }

  /// Adds a large triangle to the list.
  void cover_rows(std::size_t slot) {
    const std::int32_t number = batch_.triangle[slot];
    const simd::Triangle triangle = exact_triangle(number);
    if (!triangle.drawn) return;
    const int top = batch_.top[slot], left = batch_.left[slot];
    for (int y = top; y <= top + batch_.rows[slot]; ++y) {
      int first = left, last = left + batch_.columns[slot];
      for (const simd::Edge& edge : triangle.edges) {
        narrow(edge, simd::value_in_row(edge, y), first, last);
      }
      constexpr std::int32_t kMost = simd::FragmentList::kMostInRow;
      for (int x = first; x <= last; x += kMost) {
        if (list_.size + kMost > simd::FragmentList::kMost) paint_list();
        loops_.cover_row(triangle, number, y, x, std::min(kMost, last - x + 1), grid_, list_);
      }
    }
  }

  const Mesh& mesh_;
  const RasterBuffers& buffers_;
  const simd::ByteTarget* const bytes_;
  const simd::PixelWindow window_;
  const simd::PixelGrid grid_;
  const simd::Loops& loops_ = simd::loops();
  simd::TriangleBatch batch_;
  simd::FragmentList list_;
};

std::size_t require_buffers(const RasterBuffers& buffers) {
  constexpr int kMost = 1 << 24;  // up to there each whole number is a float
  const auto fits = [](int first, int size) {
    return first >= 0 && size >= 0 && first <= kMost && size <= kMost - first;
  };
  if (!fits(buffers.top, buffers.height) || !fits(buffers.left, buffers.width)) {
    require(false, "buffers", "left, top and sizes in 0.." + std::to_string(kMost), buffers.height,
            " x ", buffers.width, " at (", buffers.left, ", ", buffers.top, ")");
  }
  const std::size_t pixels =
      static_cast<std::size_t>(buffers.height) * static_cast<std::size_t>(buffers.width);
  require(pixels <= kMostRasterPixels, "buffers", "at most 2^30 pixels", pixels);  // see PixelGrid
  require(pixels == 0 || buffers.depth != nullptr, "buffers", "a depth buffer", "null");
  return pixels;
}

void draw(Span<const float> vertices, Span<const std::int32_t> triangles,
          Span<const float> attributes, int channels, const RasterBuffers& buffers,
          const simd::ByteTarget* bytes) {
  const std::size_t pixels = require_buffers(buffers);
  const std::size_t vertex_count = require_vertices(vertices);
  require_triangles(triangles, vertex_count);
  const std::size_t triangle_count = triangles.size() / 3;
  constexpr std::size_t kMost = std::numeric_limits<std::int32_t>::max() / 3;
  if (triangle_count > kMost || vertex_count > kMost) {
    require(false, "mesh", "at most " + std::to_string(kMost) + " vertices and triangles",
            vertex_count, " and ", triangle_count);
  }
  std::size_t attribute_count = 0;
  if (buffers.image != nullptr || bytes != nullptr) {
    require(channels > 0, "channels", "at least 1", channels);
    attribute_count = vertex_count * static_cast<std::size_t>(channels);
  }
  require_size("attributes", attribute_count, attributes.size());
  if (pixels == 0) {
    return;
  }

  const Mesh mesh{
      {vertices.data(), triangles.data(), static_cast<std::int32_t>(vertex_count) - 1},
      triangle_count,
      {triangles.data(), attributes.data(), static_cast<std::size_t>(std::max(channels, 0))}};
  Painter(mesh, buffers, bytes).paint();
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
  draw(vertices, triangles, attributes, channels, buffers, nullptr);
}

void rasterize_bytes(Span<const float> vertices, Span<const std::int32_t> triangles,
                     Span<const float> attributes, int channels, const RasterBuffers& buffers,
                     const simd::ByteTarget& bytes) {
  draw(vertices, triangles, attributes, channels, buffers, &bytes);
}

}  // namespace threedfa
