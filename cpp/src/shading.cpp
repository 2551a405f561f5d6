#include "threedfa/shading.hpp"

#include <algorithm>
#include <cstddef>

#include "bounds.hpp"
#include "simd/loops.hpp"
#include "triangle_indices.hpp"

namespace threedfa {
namespace {

using Vector = std::array<float, 3>;

/// Sim3DR's unit range: the longest side of the bounding box becomes 2 long, its centre the origin.
struct UnitRange {
  Vector least;
  Vector half;  ///< half of each side after scaling
  float extent;

  explicit UnitRange(Span<const float> vertices) {
    const Bounds bounds = bounds_of(vertices);
    least = bounds.low;
    const Vector& most = bounds.high;
    extent = std::max({most[0] - least[0], most[1] - least[1], most[2] - least[2]});
    if (!(extent > 0.0f)) {
      extent = 1.0f;  // all vertices are one point
    }
    for (std::size_t axis = 0; axis < 3; ++axis) {
      half[axis] = (most[axis] - least[axis]) / extent;
    }
  }
};

}  // namespace

void shade(Span<const float> vertices, Span<const float> normals, const Lighting& lighting,
           Span<float> out) {
  const std::size_t count = require_vertices(vertices);
  require_size("normals", vertices.size(), normals.size());
  require_size("out", count, out.size());
  require(lighting.shininess >= 1, "shininess", "at least 1", lighting.shininess);
  if (count == 0) {
    return;
  }

  const UnitRange range(vertices);
  simd::ShadingTerms terms{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    terms.least[axis] = range.least[axis];
    terms.half[axis] = range.half[axis];
    terms.light[axis] = lighting.light[axis];
    terms.view[axis] = lighting.view[axis];
  }
  terms.extent = range.extent;
  terms.ambient = lighting.ambient;
  terms.diffuse = lighting.diffuse;
  terms.specular = lighting.specular;
  terms.shininess = lighting.shininess;
  simd::loops().shade(vertices.data(), normals.data(), count, terms, out.data());
}

}  // namespace threedfa
