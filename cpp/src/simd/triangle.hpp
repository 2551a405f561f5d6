#pragma once

// Which pixels a triangle covers, one definition for every build of the loops and for the code
// around them. The functions are in an unnamed namespace, so that each file compiles its own copy
// for its own instructions.

#include <cstdint>
#include <limits>

namespace threedfa::simd {

/// A triangle's edge as a * (px - x) + b * (py - y): positive inside. Triangles that share an edge
/// compute it from the same end point with exactly negated a and b, so rounding gives them exactly
/// opposite values and no pixel falls between them or to both.
struct Edge {
  double a, b, x, y;
  double least;  ///< a pixel belongs to the triangle from this value on
};

struct Triangle {
  Edge edges[3];   ///< opposite to the corners
  float depth[3];  ///< z of the corners
  bool drawn;      ///< has an area, and nothing in it is infinite or NaN
};

namespace {

inline double value_in_row(const Edge& edge, double py) { return edge.b * (py - edge.y); }
inline double value_at(const Edge& edge, double px, double value_in_row) {
  return edge.a * (px - edge.x) + value_in_row;
}

/// From (px, py) to (qx, qy); `side` = 1 or -1 turns the inside positive.
inline Edge edge_between(double px, double py, double qx, double qy, double side) {
  const double a = side * (py - qy), b = side * (qx - px);
  const bool from_q = (qx < px) | ((qx == px) & (qy < py));
  // A centre on the edge counts for left and top edges. Products of two floats, and their
  // sums, are zero or far above DBL_MIN: comparing with it means "greater than zero".
  const bool top_left = (a > 0.0) | ((a == 0.0) & (b > 0.0));
  return {a, b, from_q ? qx : px, from_q ? qy : py,
          top_left ? 0.0 : std::numeric_limits<double>::min()};
}

inline Triangle make_triangle(float x0, float y0, float z0, float x1, float y1, float z1, float x2,
                              float y2, float z2) {
  const Edge first = edge_between(x1, y1, x2, y2, 1.0);
  const double area = value_at(first, x0, value_in_row(first, y0));
  const double side = area > 0.0 ? 1.0 : -1.0;
  // Zero, unless something is infinite or NaN.
  const float zero =
      0 * x0 + 0 * y0 + 0 * z0 + 0 * x1 + 0 * y1 + 0 * (z1 - z0) + 0 * x2 + 0 * y2 + 0 * (z2 - z0);
  return {{edge_between(x1, y1, x2, y2, side), edge_between(x2, y2, x0, y0, side),
           edge_between(x0, y0, x1, y1, side)},
          {z0, z1, z2},
          static_cast<bool>((area != 0.0) & (zero == 0.0f))};
}

/// What a triangle shows at a pixel.
struct Fragment {
  float weights[3];
  float depth;
  bool inside;  ///< where false, the rest means nothing
};

/// `values`: of the triangle's edges at the pixel's centre.
inline Fragment fragment_at(const Triangle& triangle, double value0, double value1, double value2) {
  // The sum is twice the area. Unlike the area computed once, it has no cancellation, so weights
  // stay within 0..1 in the thinnest triangle; there, rounding may make it zero.
  const double sum = value0 + value1 + value2;
  const double inverse = 1.0 / sum;
  const auto w0 = static_cast<float>(value0 * inverse);
  const auto w1 = static_cast<float>(value1 * inverse);
  const auto w2 = static_cast<float>(value2 * inverse);
  const float z0 = triangle.depth[0];
  return {{w0, w1, w2},
          z0 + (w1 * (triangle.depth[1] - z0) + w2 * (triangle.depth[2] - z0)),
          static_cast<bool>(triangle.drawn & (value0 >= triangle.edges[0].least) &
                            (value1 >= triangle.edges[1].least) &
                            (value2 >= triangle.edges[2].least) & (sum > 0.0))};
}

}  // namespace
}  // namespace threedfa::simd
