#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

#include "threedfa/subdivision.hpp"

using threedfa::Subdivision;

namespace {

using Floats = std::vector<float>;
using Ints = std::vector<std::int32_t>;

Subdivision make(const Ints& triangles, std::size_t vertex_count) {
  return Subdivision(triangles, vertex_count);
}

Floats apply(const Subdivision& subdivision, const Floats& base, std::size_t channels) {
  Floats dense(subdivision.dense_count() * channels, 99.0f);
  subdivision.apply(base, dense);
  return dense;
}

// The number of the new vertex between two vertices.
std::size_t between(const Subdivision& subdivision, std::int32_t a, std::int32_t b) {
  const auto edges = subdivision.edges();
  for (std::size_t e = 0; e < edges.size(); e += 2) {
    if ((edges[e] == a && edges[e + 1] == b) || (edges[e] == b && edges[e + 1] == a)) {
      return subdivision.base_count() + e / 2;
    }
  }
  FAIL("no such edge");
  return 0;
}

// A new vertex's weight of each base vertex.
Floats weights(const Subdivision& subdivision, std::int32_t a, std::int32_t b) {
  const std::size_t row = between(subdivision, a, b);
  Floats result;
  for (std::size_t v = 0; v < subdivision.base_count(); ++v) {
    Floats base(subdivision.base_count(), 0.0f);
    base[v] = 1.0f;
    result.push_back(apply(subdivision, base, 1)[row]);
  }
  return result;
}

// Vertex numbers of a grid of n x n vertices, all triangles split the same way.
Ints grid(std::int32_t n) {
  Ints triangles;
  for (std::int32_t y = 0; y + 1 < n; ++y) {
    for (std::int32_t x = 0; x + 1 < n; ++x) {
      const std::int32_t i = y * n + x;
      triangles.insert(triangles.end(), {i, i + 1, i + n + 1, i, i + n + 1, i + n});
    }
  }
  return triangles;
}

// A vertex 0 with `count` triangles around it and nothing else.
Ints umbrella(std::int32_t count) {
  Ints triangles;
  for (std::int32_t k = 0; k < count; ++k) {
    triangles.insert(triangles.end(), {0, 1 + k, 1 + (k + 1) % count});
  }
  return triangles;
}

const Ints kOctahedron{0, 2, 4, 2, 1, 4, 1, 3, 4, 3, 0, 4, 2, 0, 5, 1, 2, 5, 3, 1, 5, 0, 3, 5};

Ints random_triangles(std::mt19937& random, std::size_t vertices, std::size_t count) {
  Ints triangles;
  for (std::size_t i = 0; i < 3 * count; ++i) {
    triangles.push_back(static_cast<std::int32_t>(random() % vertices));
  }
  return triangles;
}

}  // namespace

TEST_CASE("subdivision: one vertex for each edge, four triangles for each triangle") {
  for (const std::int32_t n : {2, 3, 7}) {
    const auto size = static_cast<std::size_t>(n);
    const Subdivision subdivision = make(grid(n), size * size);
    const std::size_t edges = 2 * size * (size - 1) + (size - 1) * (size - 1);
    CHECK(subdivision.base_count() == size * size);
    CHECK(subdivision.dense_count() == size * size + edges);
    CHECK(subdivision.triangles().size() == 4 * grid(n).size());
  }
  const Subdivision octahedron = make(kOctahedron, 6);
  CHECK(octahedron.dense_count() == 6 + 12);
  CHECK(octahedron.triangles().size() == 3 * 32);
}

TEST_CASE("subdivision: vertices stay; new triangles fill their triangle and keep its sense") {
  const Subdivision subdivision = make(kOctahedron, 6);
  const Floats base{1, 0, 0, -1, 0, 0, 0, 1, 0, 0, -1, 0, 0, 0, 1, 0, 0, -1};
  const Floats dense = apply(subdivision, base, 3);
  CHECK(std::equal(base.begin(), base.end(), dense.begin()));
  // Every directed side once and its opposite once: closed, manifold, all outwards.
  std::map<std::pair<std::int32_t, std::int32_t>, int> sides;
  const auto triangles = subdivision.triangles();
  for (std::size_t t = 0; t < triangles.size(); t += 3) {
    for (std::size_t k = 0; k < 3; ++k) ++sides[{triangles[t + k], triangles[t + (k + 1) % 3]}];
    float sign = 0;
    for (std::size_t axis = 0; axis < 3; ++axis) {  // det(a, b, c) > 0: seen from outside
      const auto at = [&](std::size_t corner, std::size_t i) {
        return dense[3 * static_cast<std::size_t>(triangles[t + corner]) + (axis + i) % 3];
      };
      sign += at(0, 0) * (at(1, 1) * at(2, 2) - at(1, 2) * at(2, 1));
    }
    CHECK(sign > 0);
  }
  for (const auto& side : sides) {
    CHECK(side.second == 1);
    CHECK(sides.count({side.first.second, side.first.first}) == 1);
  }
}

TEST_CASE("subdivision: the regular stencil is the butterfly and holds cubic surfaces") {
  const std::int32_t n = 7;
  const Subdivision subdivision = make(grid(n), 49);
  const Floats w = weights(subdivision, 24, 25);
  Floats expected(49, 0.0f);
  for (const std::size_t v : {24, 25}) expected[v] = 0.5f;
  for (const std::size_t v : {32, 17}) expected[v] = 0.125f;
  for (const std::size_t v : {31, 33, 16, 18}) expected[v] = -0.0625f;
  CHECK(w == expected);

  Floats heights;
  const auto cubic = [](float x, float y) { return x * x * x - 2 * x * x * y + y * y - 3 * x + 1; };
  for (std::int32_t i = 0; i < n * n; ++i) {
    heights.push_back(cubic(static_cast<float>(i % n), static_cast<float>(i / n)));
  }
  const Floats dense = apply(subdivision, heights, 1);
  int checked = 0;
  for (std::size_t e = 0; e < subdivision.edges().size(); e += 2) {
    const std::int32_t a = subdivision.edges()[e], b = subdivision.edges()[e + 1];
    const auto inside = [&](std::int32_t v) {
      return v % n >= 2 && v % n < n - 2 && v / n >= 2 && v / n < n - 2;
    };
    if (!inside(a) || !inside(b)) continue;
    const float x = static_cast<float>(a % n + b % n) / 2,
                y = static_cast<float>(a / n + b / n) / 2;
    CHECK(dense[49 + e / 2] == doctest::Approx(cubic(x, y)));
    ++checked;
  }
  CHECK(checked == 16);
}

TEST_CASE("subdivision: irregular vertices use their ring") {
  // Zorin et al. 1996, section 3; the ends' ring has borders, so it has no say.
  const std::map<std::int32_t, Floats> rings{
      {3, {5.0f / 12, -1.0f / 12, -1.0f / 12}},
      {4, {3.0f / 8, 0, -1.0f / 8, 0}},
      {5, {0.35f, 0.0309017f, -0.0809017f, -0.0809017f, 0.0309017f}}};
  for (const auto& ring : rings) {
    const Floats w =
        weights(make(umbrella(ring.first), static_cast<std::size_t>(ring.first) + 1), 0, 1);
    CHECK(w[0] == 0.75f);
    for (std::size_t k = 0; k < ring.second.size(); ++k) {
      CHECK(w[1 + k] == doctest::Approx(ring.second[k]));
    }
  }
  // Two ends of four triangles each: the mean of both stencils, [3/4, 3/8 ...] and [3/8 ..., 3/4].
  const Floats w = weights(make(kOctahedron, 6), 0, 2);
  const Floats expected{0.5625f, -0.0625f, 0.5625f, -0.0625f, 0, 0};
  for (std::size_t v = 0; v < 6; ++v) CHECK(w[v] == doctest::Approx(expected[v]));
}

TEST_CASE("subdivision: borders follow the border alone") {
  const Subdivision subdivision = make(grid(5), 25);
  Floats expected(25, 0.0f);
  expected[0] = expected[3] = -0.0625f;
  expected[1] = expected[2] = 0.5625f;
  CHECK(weights(subdivision, 1, 2) == expected);
}

TEST_CASE("subdivision: where the mesh is no surface, edges are halved") {
  const Subdivision book = make({0, 1, 2, 1, 0, 3, 0, 1, 4}, 5);  // three pages
  CHECK(weights(book, 0, 1) == Floats{0.5f, 0.5f, 0, 0, 0});
  const Subdivision against =
      make({0, 1, 2, 0, 1, 3}, 4);  // one of the two runs the wrong way round
  CHECK(weights(against, 0, 1) == Floats{0.5f, 0.5f, 0, 0});
  const Subdivision bow_tie = make({0, 1, 2, 0, 3, 4}, 5);  // borders cross in vertex 0
  CHECK(weights(bow_tie, 0, 1) == Floats{0.5f, 0.5f, 0, 0, 0});
  CHECK(weights(bow_tie, 1, 2) == Floats{-0.125f, 0.5625f, 0.5625f, 0, 0});
}

TEST_CASE("subdivision: flat stays flat, on any mesh: affine maps go through") {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (int round = 0; round < 300; ++round) {
    const std::size_t vertices = 3 + random() % 12;
    const Ints triangles = random_triangles(random, vertices, random() % 30);
    const Subdivision subdivision = make(triangles, vertices);
    Floats base;
    for (std::size_t v = 0; v < vertices; ++v) {
      const float x = normal(random), y = normal(random);
      base.insert(base.end(), {x, y, 2 * x - 3 * y + 5, 7});
    }
    const Floats dense = apply(subdivision, base, 4);
    for (std::size_t v = 0; v < dense.size(); v += 4) {
      CHECK(std::abs(dense[v + 2] - (2 * dense[v] - 3 * dense[v + 1] + 5)) < 1e-4f);
      CHECK(std::abs(dense[v + 3] - 7) < 1e-5f);
    }
    std::set<std::pair<std::int32_t, std::int32_t>> edges;
    for (std::size_t i = 0; i < triangles.size(); ++i) {
      const std::int32_t a = triangles[i], b = triangles[i % 3 == 2 ? i - 2 : i + 1];
      edges.insert({std::min(a, b), std::max(a, b)});
    }
    CHECK(subdivision.dense_count() == vertices + edges.size());
  }
}

TEST_CASE("subdivision: a vertex in very many triangles costs no more than others") {
  const std::int32_t count = 200000;
  const Subdivision hub = make(umbrella(count), static_cast<std::size_t>(count) + 1);
  CHECK(hub.dense_count() == 3 * static_cast<std::size_t>(count) + 1);
  Floats base(hub.base_count(), 1.0f);
  const Floats dense = apply(hub, base, 1);
  CHECK(*std::min_element(dense.begin(), dense.end()) == 1.0f);
  CHECK(*std::max_element(dense.begin(), dense.end()) == 1.0f);
}

TEST_CASE("subdivision: any number of channels, copies included, and nothing at all") {
  const Subdivision subdivision = make(grid(3), 9);
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  Floats three(27), one(9);
  for (float& value : three) value = normal(random);
  for (std::size_t v = 0; v < 9; ++v) one[v] = three[3 * v + 1];
  const Subdivision copy = subdivision;
  const Floats dense3 = apply(copy, three, 3), dense1 = apply(subdivision, one, 1);
  for (std::size_t v = 0; v < dense1.size(); ++v) CHECK(dense1[v] == dense3[3 * v + 1]);
  CHECK(apply(subdivision, {}, 0).empty());
  const Subdivision nothing = make({}, 0);
  CHECK(nothing.dense_count() == 0);
  CHECK(apply(nothing, {}, 3).empty());
  const Subdivision points = make({}, 2);
  CHECK(apply(points, {1, 2}, 1) == Floats{1, 2});
}

TEST_CASE("subdivision: bad input is refused") {
  CHECK_THROWS_AS(make({0, 1}, 3), std::invalid_argument);
  CHECK_THROWS_AS(make({0, 1, 3}, 3), std::invalid_argument);
  CHECK_THROWS_AS(make({0, -1, 2}, 3), std::invalid_argument);
  const Subdivision subdivision = make({0, 1, 2}, 3);
  Floats dense(18);
  const auto run = [&](const Floats& base) { subdivision.apply(base, dense); };
  CHECK_THROWS_WITH_AS(run(Floats(8)),
                       "base: expected the same number of values for each of 3 vertices, got 8 "
                       "values",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(run(Floats(6)), "dense: expected 12 elements, got 18",
                       std::invalid_argument);
}
