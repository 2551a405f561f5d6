#include "threedfa/rasterizer.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>

#include "triangle_indices.hpp"

namespace threedfa {
namespace {

/// Rows shorter than this are tested pixel by pixel; finding where a longer one enters and leaves
/// the triangle costs less than testing it all.
constexpr int kLongRow = 16;

struct Mesh {
  const float* vertices;
  const std::int32_t* triangles;
  std::size_t triangle_count;
  const float* attributes;
  std::size_t channels;
};

/// A triangle's edge as a * (px - x) + b * (py - y): positive inside. Triangles that share an edge
/// compute it from the same end point with exactly negated a and b, so rounding gives them exactly
/// opposite values and no pixel falls between them or to both.
struct Edge {
  double a;
  double b;
  double x;
  double y;
  double least;  ///< a pixel belongs to the triangle from this value on

  /// From (px, py) to (qx, qy), `side` = 1 or -1 turns the inside positive.
  Edge(double px, double py, double qx, double qy, double side)
      : a(side * (py - qy)), b(side * (qx - px)) {
    const bool from_q = (qx < px) | ((qx == px) & (qy < py));
    x = from_q ? qx : px;
    y = from_q ? qy : py;
    // A centre on the edge counts for left and top edges. Products of two floats, and their
    // sums, are zero or far above DBL_MIN: comparing with it means "greater than zero".
    const bool top_left = (a > 0.0) | ((a == 0.0) & (b > 0.0));
    least = top_left ? 0.0 : std::numeric_limits<double>::min();
  }

  double row(double py) const { return b * (py - y); }
  double at(double px, double row_value) const { return a * (px - x) + row_value; }
};

/// Cuts first..last down to the pixels of a row that can be inside the edge, give or take one.
void narrow(const Edge& edge, double row_value, int& first, int& last) {
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

template <bool kTriangle, bool kBarycentric, bool kImage>
void draw(const Mesh& mesh, const RasterBuffers& buffers) {
  const double right = buffers.width - 1;
  const double bottom = buffers.height - 1;
  const auto width = static_cast<std::size_t>(buffers.width);

  for (std::size_t t = 0; t < mesh.triangle_count; ++t) {
    const std::int32_t* index = mesh.triangles + 3 * t;
    const float* v0 = mesh.vertices + 3 * static_cast<std::size_t>(index[0]);
    const float* v1 = mesh.vertices + 3 * static_cast<std::size_t>(index[1]);
    const float* v2 = mesh.vertices + 3 * static_cast<std::size_t>(index[2]);

    // Clip the box to the buffers while it is floating point, so that it fits an int. With a NaN
    // it is still inside the buffers, and with an infinity too or empty.
    const double left_edge = std::max(0.0, double(std::min(v0[0], std::min(v1[0], v2[0]))));
    const double right_edge = std::min(right, double(std::max(v0[0], std::max(v1[0], v2[0]))));
    const double top_edge = std::max(0.0, double(std::min(v0[1], std::min(v1[1], v2[1]))));
    const double bottom_edge = std::min(bottom, double(std::max(v0[1], std::max(v1[1], v2[1]))));
    if (!(left_edge <= right_edge) || !(top_edge <= bottom_edge)) {
      continue;
    }
    int x_first = static_cast<int>(left_edge);
    int y_first = static_cast<int>(top_edge);
    x_first += x_first < left_edge;  // ceil and floor of numbers that are not negative
    y_first += y_first < top_edge;
    const int x_last = static_cast<int>(right_edge);
    const int y_last = static_cast<int>(bottom_edge);
    if (x_first > x_last || y_first > y_last) {
      continue;
    }

    // Zero, unless something is infinite or NaN.
    const float sum_of_zeros = 0 * v0[0] + 0 * v0[1] + 0 * v0[2] + 0 * v1[0] + 0 * v1[1] +
                               0 * v1[2] + 0 * v2[0] + 0 * v2[1] + 0 * v2[2];
    if (!(sum_of_zeros == 0.0f)) {
      continue;
    }
    const Edge unsided(v1[0], v1[1], v2[0], v2[1], 1.0);
    const double area = unsided.at(v0[0], unsided.row(v0[1]));
    if (area == 0.0) {
      continue;
    }
    const double side = area > 0.0 ? 1.0 : -1.0;
    const Edge edge0(v1[0], v1[1], v2[0], v2[1], side);
    const Edge edge1(v2[0], v2[1], v0[0], v0[1], side);
    const Edge edge2(v0[0], v0[1], v1[0], v1[1], side);

    for (int y = y_first; y <= y_last; ++y) {
      const double row0 = edge0.row(y);
      const double row1 = edge1.row(y);
      const double row2 = edge2.row(y);
      int first = x_first;
      int last = x_last;
      if (last - first >= kLongRow) {
        narrow(edge0, row0, first, last);
        narrow(edge1, row1, first, last);
        narrow(edge2, row2, first, last);
      }
      for (int x = first; x <= last; ++x) {
        const double e0 = edge0.at(x, row0);
        const double e1 = edge1.at(x, row1);
        const double e2 = edge2.at(x, row2);
        if (!((e0 >= edge0.least) & (e1 >= edge1.least) & (e2 >= edge2.least))) {
          continue;
        }
        // The sum is twice the area. Unlike the area computed once, it has no cancellation, so
        // weights stay within 0..1 in the thinnest triangle; there, rounding may make it zero.
        const double sum = e0 + e1 + e2;
        if (!(sum > 0.0)) {
          continue;
        }
        const double inverse = 1.0 / sum;
        const auto w0 = static_cast<float>(e0 * inverse);
        const auto w1 = static_cast<float>(e1 * inverse);
        const auto w2 = static_cast<float>(e2 * inverse);
        const float z = w0 * v0[2] + w1 * v1[2] + w2 * v2[2];
        const std::size_t pixel = static_cast<std::size_t>(y) * width + static_cast<std::size_t>(x);
        if (!(z > buffers.depth[pixel])) {
          continue;
        }
        buffers.depth[pixel] = z;
        if constexpr (kTriangle) {
          buffers.triangle[pixel] = static_cast<std::int32_t>(t);
        }
        if constexpr (kBarycentric) {
          float* weights = buffers.barycentric + 3 * pixel;
          weights[0] = w0;
          weights[1] = w1;
          weights[2] = w2;
        }
        if constexpr (kImage) {
          const std::size_t channels = mesh.channels;
          const float* c0 = mesh.attributes + channels * static_cast<std::size_t>(index[0]);
          const float* c1 = mesh.attributes + channels * static_cast<std::size_t>(index[1]);
          const float* c2 = mesh.attributes + channels * static_cast<std::size_t>(index[2]);
          float* colour = buffers.image + channels * pixel;
          for (std::size_t c = 0; c < channels; ++c) {
            colour[c] = w0 * c0[c] + w1 * c1[c] + w2 * c2[c];
          }
        }
      }
    }
  }
}

std::size_t require_buffers(const RasterBuffers& buffers) {
  require(buffers.height >= 0 && buffers.width >= 0, "buffers", "a height and width of at least 0",
          std::to_string(buffers.height) + " x " + std::to_string(buffers.width));
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
  require(triangle_count <= std::numeric_limits<std::int32_t>::max(), "triangles",
          "at most 2147483647 triangles", std::to_string(triangle_count));
  std::size_t attribute_count = 0;
  if (buffers.image != nullptr) {
    require(channels > 0, "channels", "at least 1", std::to_string(channels));
    attribute_count = vertex_count * static_cast<std::size_t>(channels);
  }
  require_size("attributes", attribute_count, attributes.size());
  if (pixels == 0) {
    return;
  }

  // Which buffers there are is decided here, not at each pixel.
  using Draw = void (*)(const Mesh&, const RasterBuffers&);
  constexpr Draw kDraw[2][2][2] = {{{draw<false, false, false>, draw<false, false, true>},
                                    {draw<false, true, false>, draw<false, true, true>}},
                                   {{draw<true, false, false>, draw<true, false, true>},
                                    {draw<true, true, false>, draw<true, true, true>}}};
  const Mesh mesh{vertices.data(), triangles.data(), triangle_count, attributes.data(),
                  static_cast<std::size_t>(std::max(channels, 0))};
  kDraw[buffers.triangle != nullptr][buffers.barycentric != nullptr][buffers.image != nullptr](
      mesh, buffers);
}

}  // namespace threedfa
