#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "threedfa/normals.hpp"
#include "threedfa/vertex_rings.hpp"

using threedfa::vertex_normals;
using threedfa::VertexRings;

namespace {

std::vector<float> ring_normals(const std::vector<float>& vertices,
                                const std::vector<std::int32_t>& triangles) {
  std::vector<float> out(vertices.size(), 99.0f);
  vertex_normals(vertices, VertexRings(triangles, vertices.size() / 3), out);
  return out;
}

/// By both ways, which may differ by a few roundings.
std::vector<float> normals_of(const std::vector<float>& vertices,
                              const std::vector<std::int32_t>& triangles, float tolerance = 1e-6f) {
  std::vector<float> out(vertices.size(), 99.0f);
  vertex_normals(vertices, triangles, out);
  const std::vector<float> other = ring_normals(vertices, triangles);
  for (std::size_t k = 0; k < out.size(); ++k) CHECK(std::abs(other[k] - out[k]) <= tolerance);
  return out;
}

/// Heights over a grid of `side` x `side` vertices, two triangles a square.
struct Sheet {
  std::vector<float> vertices;
  std::vector<std::int32_t> triangles;

  Sheet(int side, std::mt19937& random) {
    std::uniform_real_distribution<float> height(0, 1);
    for (int i = 0; i < side * side; ++i) {
      vertices.insert(vertices.end(),
                      {static_cast<float>(i % side), static_cast<float>(i / side), height(random)});
    }
    for (int row = 0; row + 1 < side; ++row) {
      for (int column = 0; column + 1 < side; ++column) {
        const int a = row * side + column, b = a + 1, c = a + side, d = c + 1;
        if (random() % 2 == 0) {
          triangles.insert(triangles.end(), {a, b, c, b, d, c});
        } else {
          triangles.insert(triangles.end(), {a, b, d, a, d, c});
        }
      }
    }
  }
};

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
    // Sums of large areas that nearly cancel differ by more.
    const std::vector<float> n = normals_of(vertices, triangles, 1e-3f);
    const std::vector<float> opposite = normals_of(vertices, turned, 1e-3f);
    for (std::size_t k = 0; k < n.size(); k += 3) {
      const double length = std::hypot(n[k], n[k + 1], n[k + 2]);
      CHECK((length == 0.0 || std::abs(length - 1.0) < 1e-6));
      for (std::size_t axis = 0; axis < 3; ++axis) {
        CHECK(std::abs(opposite[k + axis] + n[k + axis]) < 1e-6f);
      }
    }
  }
}

TEST_CASE("normals: of a sheet, with any triangles left out, in any order") {
  std::mt19937 random(8);
  for (int round = 0; round < 200; ++round) {
    Sheet sheet(2 + static_cast<int>(random() % 12), random);
    auto& triangles = sheet.triangles;
    for (std::size_t i = 0; i < static_cast<std::size_t>(round % 5) * 3; ++i) {
      const std::size_t t = 3 * (random() % (triangles.size() / 3));
      if (i % 2 == 0) {  // names a vertex twice: no area
        triangles[t] = triangles[t + 1];
      } else {  // turned over: meets its neighbours the wrong way round
        std::swap(triangles[t], triangles[t + 1]);
      }
    }
    for (std::size_t t = 0; t < triangles.size(); t += 3) {
      const std::size_t other = 3 * (random() % (triangles.size() / 3));
      std::swap_ranges(&triangles[t], &triangles[t] + 3, &triangles[other]);
      std::rotate(&triangles[t], &triangles[t] + random() % 3, &triangles[t] + 3);
    }
    triangles.resize(triangles.size() - 3 * (random() % (triangles.size() / 3)));
    const float scale = std::ldexp(1.0f, static_cast<int>(random() % 180) - 90);
    for (float& value : sheet.vertices) value *= round % 2 == 0 ? 1.0f : scale;
    normals_of(sheet.vertices, triangles, 2e-6f);
  }
}

TEST_CASE("normals: where sheets meet in a vertex or an edge") {
  std::mt19937 random(9);
  std::uniform_real_distribution<float> coordinate(-1, 1);
  std::vector<float> vertices(3 * 9);
  for (float& value : vertices) value = coordinate(random);
  // Two closed rings and a fan around vertex 0; three triangles at the edge 0-1; one twice.
  const std::vector<std::int32_t> triangles{0, 1, 2, 0, 2, 3, 0, 3, 1, 0, 4, 5, 0, 5, 6,
                                            0, 6, 4, 0, 7, 8, 0, 1, 7, 0, 1, 7, 1, 0, 8};
  normals_of(vertices, triangles, 2e-6f);
  normals_of(vertices, {0, 1, 2, 2, 1, 0}, 0);  // both sides of one triangle: no area
}

TEST_CASE("normals: of coordinates whose products overflow in one axis") {
  std::mt19937 random(10);
  std::uniform_real_distribution<float> coordinate(-1, 1);
  for (int round = 0; round < 200; ++round) {
    const float scales[] = {1e-23f, 1e22f, 1e18f};
    std::vector<float> vertices(3 * 9);
    for (std::size_t i = 0; i < vertices.size(); ++i) {
      vertices[i] = coordinate(random) * scales[(i + static_cast<std::size_t>(round)) % 3];
    }
    normals_of(vertices, {0, 1, 2, 0, 2, 3, 0, 3, 4, 5, 6, 7, 5, 7, 8}, 1e-3f);
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
  constexpr std::int32_t kLast = std::numeric_limits<std::int32_t>::max();
  CHECK_THROWS_AS(normals_of({}, {kLast, kLast, kLast}), std::invalid_argument);
  CHECK_THROWS_AS(normals_of(std::vector<float>(15), {0, 1, 2, 3}), std::invalid_argument);
  std::vector<float> small(8);
  const std::vector<std::int32_t> triangles{0, 1, 2};
  CHECK_THROWS_AS(vertex_normals(vertices, triangles, small), std::invalid_argument);
  CHECK(normals_of({}, {}).empty());

  const VertexRings rings(triangles, 3);
  std::vector<float> out(9);
  CHECK_THROWS_AS(vertex_normals(vertices, rings, small), std::invalid_argument);
  CHECK_THROWS_AS(vertex_normals(small, rings, out), std::invalid_argument);
  CHECK_THROWS_AS(VertexRings(triangles, 2), std::invalid_argument);
  const std::vector<std::int32_t> negative{0, 1, -1}, incomplete{0, 1};
  CHECK_THROWS_AS(VertexRings(negative, 3), std::invalid_argument);
  CHECK_THROWS_AS(VertexRings(incomplete, 3), std::invalid_argument);
}
