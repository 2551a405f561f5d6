#include "threedfa/shading.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "triangle_indices.hpp"

namespace threedfa {
namespace {

using Vector = std::array<float, 3>;

float dot(const Vector& a, const Vector& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

/// Unit vector from `from` to `to`; zero where they are the same point.
Vector direction(const Vector& from, const Vector& to) {
  const Vector d{to[0] - from[0], to[1] - from[1], to[2] - from[2]};
  const float length = std::sqrt(dot(d, d));
  return length > 0.0f ? Vector{d[0] / length, d[1] / length, d[2] / length} : Vector{0, 0, 0};
}

/// base^exponent; std::pow takes far longer and this runs three times for each vertex.
float power(float base, int exponent) {
  float result = 1.0f;
  for (; exponent > 0; exponent /= 2) {
    if (exponent % 2 == 1) {
      result *= base;
    }
    base *= base;
  }
  return result;
}

/// Sim3DR's unit range: the longest side of the bounding box becomes 2 long, its centre the origin.
struct UnitRange {
  Vector least;
  Vector half;  ///< half of each side after scaling
  float extent;

  explicit UnitRange(Span<const float> vertices) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    least = {kInfinity, kInfinity, kInfinity};
    Vector most{-kInfinity, -kInfinity, -kInfinity};
    for (std::size_t k = 0; k < vertices.size(); k += 3) {
      for (std::size_t axis = 0; axis < 3; ++axis) {
        least[axis] = std::min(least[axis], vertices[k + axis]);
        most[axis] = std::max(most[axis], vertices[k + axis]);
      }
    }
    extent = std::max({most[0] - least[0], most[1] - least[1], most[2] - least[2]});
    if (!(extent > 0.0f)) {
      extent = 1.0f;  // all vertices are one point
    }
    for (std::size_t axis = 0; axis < 3; ++axis) {
      half[axis] = (most[axis] - least[axis]) / extent;
    }
  }

  Vector operator()(const float* vertex) const {
    Vector moved;
    for (std::size_t axis = 0; axis < 3; ++axis) {
      moved[axis] = (vertex[axis] - least[axis]) / extent * 2.0f - half[axis];
    }
    return moved;
  }
};

}  // namespace

void shade(Span<const float> vertices, Span<const float> normals, const Lighting& lighting,
           Span<float> out) {
  const std::size_t count = require_vertices(vertices);
  require_size("normals", vertices.size(), normals.size());
  require_size("out", count, out.size());
  require(lighting.shininess >= 1, "shininess", "at least 1", std::to_string(lighting.shininess));
  if (count == 0) {
    return;
  }

  const UnitRange unit_range(vertices);
  for (std::size_t i = 0; i < count; ++i) {
    const Vector point = unit_range(&vertices[3 * i]);
    const Vector normal{normals[3 * i], normals[3 * i + 1], normals[3 * i + 2]};
    const Vector to_light = direction(point, lighting.light);
    const Vector to_view = direction(point, lighting.view);
    const float cosine = dot(normal, to_light);

    float specular = 0.0f;
    if (cosine != 0.0f) {
      // The cosine is not clipped here, so a surface turned away from the light can shine too.
      for (std::size_t axis = 0; axis < 3; ++axis) {
        const float reflection = 2.0f * cosine * normal[axis] - to_light[axis];
        specular += power(to_view[axis] * reflection, lighting.shininess);
      }
    }
    const float light = lighting.ambient + lighting.diffuse * std::clamp(cosine, 0.0f, 1.0f) +
                        lighting.specular * std::clamp(specular, 0.0f, 1.0f);
    out[i] = std::clamp(light, 0.0f, 1.0f);
  }
}

}  // namespace threedfa
