#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <stdexcept>
#include <vector>

#include "threedfa/shading.hpp"

using threedfa::Lighting;
using threedfa::shade;

namespace {

std::vector<float> shaded(const std::vector<float>& vertices, const std::vector<float>& normals,
                          const Lighting& lighting = {}) {
  std::vector<float> out(vertices.size() / 3, 99.0f);
  shade(vertices, normals, lighting, out);
  return out;
}

/// Corners of a cube around the origin: already in the unit range.
const std::vector<float> kCube{-1, -1, -1, 1, -1, -1, -1, 1, -1, 1, 1, -1,
                               -1, -1, 1,  1, -1, 1,  -1, 1, 1,  1, 1, 1};

}  // namespace

TEST_CASE("shading: a vertex turned to the light, computed by hand") {
  std::vector<float> vertices = kCube, normals(kCube.size(), 0.0f);
  vertices.insert(vertices.end(), {0, 0, 1});
  normals.insert(normals.end(), {0, 0, 1});
  const std::vector<float> light = shaded(vertices, normals);
  // Vertices without a normal get the ambient light alone.
  CHECK(light[0] == 0.3f);
  // Light and eye straight above: cosine 1, reflection (0, 0, 1), 0.3 + 0.6 + 0.1.
  CHECK(light.back() == doctest::Approx(1.0));
}

TEST_CASE("shading: the specular term raises each component, then sums") {
  std::vector<float> vertices = kCube, normals(kCube.size(), 0.0f);
  vertices.insert(vertices.end(), {0, 0, 0});
  normals.insert(normals.end(), {0.6f, 0.0f, 0.8f});
  Lighting lighting;
  lighting.light = {3, 0, 4};  // direction (0.6, 0, 0.8): along the normal
  lighting.view = {4, 0, 3};   // direction (0.8, 0, 0.6)
  // Reflection = the normal, so view * reflection = (0.48, 0, 0.48).
  const double specular = 2 * std::pow(0.48, 5);
  CHECK(shaded(vertices, normals, lighting).back() == doctest::Approx(0.9 + 0.1 * specular));
  lighting.shininess = 2;
  CHECK(shaded(vertices, normals, lighting).back() == doctest::Approx(0.9 + 0.1 * 2 * 0.48 * 0.48));
}

TEST_CASE("shading: turned away from the light there is no diffuse part") {
  std::vector<float> vertices = kCube, normals(kCube.size(), 0.0f);
  vertices.insert(vertices.end(), {0, 0, 1});
  normals.insert(normals.end(), {0, 0, -1});
  // The unclipped cosine -1 reflects to (0, 0, 1) again: ambient and specular.
  CHECK(shaded(vertices, normals).back() == doctest::Approx(0.4));
}

TEST_CASE("shading: stays within 0..1 and follows neither position nor size of the mesh") {
  std::mt19937 random(11);
  std::uniform_real_distribution<float> coordinate(-1.0f, 1.0f);
  for (int round = 0; round < 50; ++round) {
    std::vector<float> vertices(3 * 40), normals(3 * 40), moved(3 * 40);
    for (std::size_t k = 0; k < vertices.size(); k += 3) {
      float length = 0;
      for (std::size_t axis = 0; axis < 3; ++axis) {
        vertices[k + axis] = coordinate(random);
        normals[k + axis] = coordinate(random);
        length += normals[k + axis] * normals[k + axis];
        moved[k + axis] = vertices[k + axis] * 128.0f + 300.0f * static_cast<float>(axis);
      }
      for (std::size_t axis = 0; axis < 3; ++axis) {
        normals[k + axis] /= std::sqrt(length);
      }
    }
    const std::vector<float> light = shaded(vertices, normals);
    const std::vector<float> light_moved = shaded(moved, normals);
    for (std::size_t i = 0; i < light.size(); ++i) {
      CHECK(light[i] >= 0.3f);
      CHECK(light[i] <= 1.0f);
      CHECK(light_moved[i] == doctest::Approx(light[i]).epsilon(1e-4));
    }
    Lighting glaring;
    glaring.ambient = 3.0f;
    CHECK(shaded(vertices, normals, glaring)[0] == 1.0f);
  }
}

TEST_CASE("shading: a mesh of one point is lit, an empty one is not an error") {
  CHECK(shaded({5, 5, 5}, {0, 0, 1})[0] == doctest::Approx(1.0));
  CHECK(shaded({}, {}).empty());
}

TEST_CASE("shading: bad sizes are refused") {
  std::vector<float> six(6), three(3), two(2), one(1);
  CHECK_THROWS_AS(shade(six, three, {}, two), std::invalid_argument);
  CHECK_THROWS_AS(shade(six, six, {}, one), std::invalid_argument);
  CHECK_THROWS_AS(shade(two, two, {}, one), std::invalid_argument);
  Lighting flat;
  flat.shininess = 0;
  CHECK_THROWS_WITH(shade(six, six, flat, two), "shininess: expected at least 1, got 0");
}
