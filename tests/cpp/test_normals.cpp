#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <stdexcept>
#include <vector>

#include "threedfa/normals.hpp"

using threedfa::vertex_normals;

namespace {

std::vector<float> normals_of(const std::vector<float>& vertices,
                              const std::vector<std::int32_t>& triangles) {
  std::vector<float> out(vertices.size(), 99.0f);
  vertex_normals(vertices, triangles, out);
  return out;
}

}  // namespace

TEST_CASE("normals: a counter-clockwise triangle in the x-y plane looks along +z") {
  const std::vector<float> vertices{0, 0, 0, 2, 0, 0, 0, 3, 0};
  CHECK(normals_of(vertices, {0, 1, 2}) == std::vector<float>{0, 0, 1, 0, 0, 1, 0, 0, 1});
  CHECK(normals_of(vertices, {0, 2, 1}) == std::vector<float>{0, 0, -1, 0, 0, -1, 0, 0, -1});
}

TEST_CASE("normals: triangles weigh by their area") {
  // Around vertex 0: area 1/2 facing +z and area 3/2 facing +x.
  const std::vector<float> vertices{0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 3};
  const std::vector<float> n = normals_of(vertices, {0, 1, 2, 0, 2, 3});
  CHECK(n[0] == doctest::Approx(3 / std::sqrt(10.0)));
  CHECK(n[1] == 0.0f);
  CHECK(n[2] == doctest::Approx(1 / std::sqrt(10.0)));
}

TEST_CASE("normals: vertices without area around them get zero") {
  // Vertices 3 and 4 are in no triangle but a degenerate one; 0 and 1 are corners of both.
  const std::vector<float> vertices{0, 0, 0, 1, 0, 0, 0, 1, 0, 5, 0, 0, 7, 7, 7};
  const std::vector<float> n = normals_of(vertices, {0, 1, 2, 0, 1, 3});
  for (const int k : {9, 10, 11, 12, 13, 14}) {
    CHECK(n[static_cast<std::size_t>(k)] == 0.0f);
  }
  CHECK(n[2] == 1.0f);
}

TEST_CASE("normals: on a closed convex mesh they point outwards") {
  const std::vector<float> octahedron{1, 0, 0, -1, 0, 0, 0, 1, 0, 0, -1, 0, 0, 0, 1, 0, 0, -1};
  const std::vector<std::int32_t> faces{0, 2, 4, 2, 1, 4, 1, 3, 4, 3, 0, 4,
                                        2, 0, 5, 1, 2, 5, 3, 1, 5, 0, 3, 5};
  const std::vector<float> n = normals_of(octahedron, faces);
  for (std::size_t k = 0; k < n.size(); ++k) {
    CHECK(n[k] == doctest::Approx(octahedron[k]));
  }
}

TEST_CASE("normals: have unit length, whatever the mesh's scale, and turn with the winding") {
  std::mt19937 random(7);
  for (int round = 0; round < 100; ++round) {
    const float scale = std::ldexp(1.0f, static_cast<int>(random() % 220) - 110);
    std::uniform_real_distribution<float> coordinate(-scale, scale);
    std::vector<float> vertices(3 * 20);
    for (float& value : vertices) {
      value = coordinate(random);
    }
    std::vector<std::int32_t> triangles, turned;
    for (int t = 0; t < 30; ++t) {
      const auto a = static_cast<std::int32_t>(random() % 20);
      const auto b = static_cast<std::int32_t>(random() % 20);
      const auto c = static_cast<std::int32_t>(random() % 20);
      triangles.insert(triangles.end(), {a, b, c});
      turned.insert(turned.end(), {a, c, b});
    }
    const std::vector<float> n = normals_of(vertices, triangles);
    const std::vector<float> opposite = normals_of(vertices, turned);
    for (std::size_t k = 0; k < n.size(); k += 3) {
      const double length = std::hypot(n[k], n[k + 1], n[k + 2]);
      CHECK((length == 0.0 || std::abs(length - 1.0) < 1e-6));
      for (std::size_t axis = 0; axis < 3; ++axis) {
        CHECK(std::abs(opposite[k + axis] + n[k + axis]) < 1e-6f);
      }
    }
  }
}

TEST_CASE("normals: bad input is refused") {
  const std::vector<float> vertices(9, 0.0f);
  CHECK_THROWS_AS(normals_of(vertices, {0, 1}), std::invalid_argument);
  CHECK_THROWS_AS(normals_of(vertices, {0, 1, 3}), std::invalid_argument);
  CHECK_THROWS_WITH(normals_of(vertices, {0, -7, 2}),
                    "triangles: expected indices from 0 to below the number of vertices, 3, got "
                    "index -7");
  CHECK_THROWS_AS(normals_of(std::vector<float>(8), {0, 1, 2}), std::invalid_argument);
  std::vector<float> small(8);
  const std::vector<std::int32_t> triangles{0, 1, 2};
  CHECK_THROWS_AS(vertex_normals(vertices, triangles, small), std::invalid_argument);
  CHECK(normals_of({}, {}).empty());
}
