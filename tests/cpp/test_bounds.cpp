#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "bounds.hpp"

using threedfa::Bounds;
using threedfa::bounds_of;

TEST_CASE("bounds: of any number of vertices, as looking at one after the other") {
  std::mt19937 generator(1);
  std::normal_distribution<float> coordinate(0, 100);
  for (std::size_t count = 1; count < 30; ++count) {
    std::vector<float> vertices(3 * count);
    for (float& value : vertices) value = coordinate(generator);
    Bounds expected{{vertices[0], vertices[1], vertices[2]},
                    {vertices[0], vertices[1], vertices[2]}};
    for (std::size_t i = 0; i < vertices.size(); ++i) {
      expected.low[i % 3] = std::fmin(expected.low[i % 3], vertices[i]);
      expected.high[i % 3] = std::fmax(expected.high[i % 3], vertices[i]);
    }
    const Bounds found = bounds_of(vertices);
    CHECK(found.low == expected.low);
    CHECK(found.high == expected.high);
  }
}

TEST_CASE("bounds: NaN counts for nothing") {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> vertices{kNan, 1, 2, 3, kNan, 4, 5, 6, kNan};
  const Bounds found = bounds_of(vertices);
  CHECK(found.low == std::array<float, 3>{3, 1, 2});
  CHECK(found.high == std::array<float, 3>{5, 6, 4});
}

TEST_CASE("bounds: of nothing") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const Bounds found = bounds_of({});
  CHECK(found.low == std::array<float, 3>{kInfinity, kInfinity, kInfinity});
  CHECK(found.high == std::array<float, 3>{-kInfinity, -kInfinity, -kInfinity});
}
