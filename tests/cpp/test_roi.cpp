#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "threedfa/roi.hpp"

using threedfa::BoxRoiRule;
using threedfa::Roi;
using threedfa::roi_from_box;
using threedfa::roi_from_landmarks;

TEST_CASE("roi_from_box: the rule of 3DDFA_V2, by hand") {
  // Mean side (100 + 121) / 2 = 110.5; 1.58 * 110.5 = 174.59, truncated to 174; centre (60, 80.5)
  // moved down by 0.14 * 110.5 = 15.47.
  const Roi roi = roi_from_box(10, 20, 110, 141);
  CHECK(roi.x1 == doctest::Approx(60 - 87));
  CHECK(roi.y1 == doctest::Approx(80.5 + 15.47 - 87));
  CHECK(roi.x2 == doctest::Approx(60 + 87));
  CHECK(roi.y2 == doctest::Approx(80.5 + 15.47 + 87));
}

TEST_CASE("roi_from_box: the rule is a parameter") {
  BoxRoiRule rule;
  rule.scale = 1.5;
  rule.shift_y = 0;
  rule.integer_side = false;
  const Roi roi = roi_from_box(0, 0, 7, 7, rule);
  CHECK(roi.x1 == 3.5 - 5.25);
  CHECK(roi.y1 == 3.5 - 5.25);
  CHECK(roi.x2 == 3.5 + 5.25);
  CHECK(roi.y2 == 3.5 + 5.25);
}

TEST_CASE("roi_from_box: always a square around the shifted centre") {
  std::mt19937 random(4);
  std::uniform_real_distribution<double> corner(-500, 2000), side(2, 900);
  for (int i = 0; i < 500; ++i) {
    const double x1 = corner(random), y1 = corner(random);
    const double w = side(random), h = side(random);
    const Roi roi = roi_from_box(x1, y1, x1 + w, y1 + h);
    const double mean = (w + h) / 2;
    REQUIRE(roi.x2 - roi.x1 == doctest::Approx(roi.y2 - roi.y1));
    REQUIRE(std::abs(roi.x2 - roi.x1 - std::round(roi.x2 - roi.x1)) < 1e-9);
    REQUIRE(roi.x2 - roi.x1 <= 1.58 * mean + 1e-9);
    REQUIRE(roi.x2 - roi.x1 > 1.58 * mean - 1 - 1e-9);
    REQUIRE((roi.x1 + roi.x2) / 2 == doctest::Approx(x1 + w / 2));
    REQUIRE((roi.y1 + roi.y2) / 2 == doctest::Approx(y1 + h / 2 + 0.14 * mean));
  }
}

TEST_CASE("roi_from_box: refuses boxes that are none") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  const double huge = std::numeric_limits<double>::max();
  CHECK_THROWS_WITH_AS(
      roi_from_box(5, 0, 5, 9),
      "box: expected finite x1 y1 x2 y2 with x1 < x2 and y1 < y2, got 5.000000 0.000000 5.000000 "
      "9.000000",
      std::invalid_argument);
  CHECK_THROWS_AS(roi_from_box(0, 9, 5, 0), std::invalid_argument);
  CHECK_THROWS_AS(roi_from_box(0, 0, 0.5, 0.5), std::invalid_argument);  // side 0.79, truncated
  CHECK_THROWS_AS(roi_from_box(-huge, -huge, huge, huge), std::invalid_argument);
  for (const double bad : {nan, infinity, -infinity}) {
    CHECK_THROWS_AS(roi_from_box(bad, 0, 5, 5), std::invalid_argument);
    CHECK_THROWS_AS(roi_from_box(0, bad, 5, 5), std::invalid_argument);
    CHECK_THROWS_AS(roi_from_box(0, 0, bad, 5), std::invalid_argument);
    CHECK_THROWS_AS(roi_from_box(0, 0, 5, bad), std::invalid_argument);
    BoxRoiRule rule;
    rule.scale = bad;
    CHECK_THROWS_AS(roi_from_box(0, 0, 5, 5, rule), std::invalid_argument);
    rule = {};
    rule.shift_y = bad;
    CHECK_THROWS_AS(roi_from_box(0, 0, 5, 5, rule), std::invalid_argument);
  }
  BoxRoiRule rule;
  rule.scale = 0;
  CHECK_THROWS_AS(roi_from_box(0, 0, 5, 5, rule), std::invalid_argument);
}

TEST_CASE("roi_from_landmarks: the diagonal of the enclosing square") {
  const std::vector<float> points{0, 10, 99, 40, 20, -99, 20, 50, 0};  // 40 wide, 40 high
  const Roi roi = roi_from_landmarks(points);
  const double half = std::sqrt(2.0) * 20;
  CHECK(roi.x1 == doctest::Approx(20 - half));
  CHECK(roi.y1 == doctest::Approx(30 - half));
  CHECK(roi.x2 == doctest::Approx(20 + half));
  CHECK(roi.y2 == doctest::Approx(30 + half));

  const std::vector<float> flat{0, 5, 30, 5};
  const Roi wide = roi_from_landmarks(flat, 2, 1.0);
  CHECK(wide.x1 == 0);
  CHECK(wide.y1 == 5 - 15);
  CHECK(wide.x2 == 30);
  CHECK(wide.y2 == 5 + 15);
}

TEST_CASE("roi_from_landmarks: z and the order of the points do not matter") {
  std::mt19937 random(5);
  std::uniform_real_distribution<float> value(-100, 100);
  for (int round = 0; round < 50; ++round) {
    std::vector<float> points(3 * 68), flat;
    for (float& v : points) v = value(random);
    for (std::size_t i = 68; i-- > 0;) {
      flat.insert(flat.end(), {points[3 * i], points[3 * i + 1]});
    }
    const Roi a = roi_from_landmarks(points), b = roi_from_landmarks(flat, 2);
    REQUIRE(a.x1 == b.x1);
    REQUIRE(a.y1 == b.y1);
    REQUIRE(a.x2 == b.x2);
    REQUIRE(a.y2 == b.y2);
    for (std::size_t i = 0; i < flat.size(); i += 2) {
      REQUIRE(flat[i] >= a.x1);
      REQUIRE(flat[i] <= a.x2);
      REQUIRE(flat[i + 1] >= a.y1);
      REQUIRE(flat[i + 1] <= a.y2);
    }
  }
}

TEST_CASE("roi_from_landmarks: refuses points that span nothing") {
  const std::vector<float> none, one{1, 2, 3}, alike{1, 2, 3, 1, 2, 9}, ragged(7), good{0, 0, 1, 1};
  CHECK_THROWS_AS(roi_from_landmarks(none), std::invalid_argument);
  CHECK_THROWS_AS(roi_from_landmarks(one), std::invalid_argument);
  CHECK_THROWS_AS(roi_from_landmarks(alike), std::invalid_argument);
  CHECK_THROWS_AS(roi_from_landmarks(ragged), std::invalid_argument);
  CHECK_THROWS_AS(roi_from_landmarks(good, 1), std::invalid_argument);
  CHECK_THROWS_AS(roi_from_landmarks(good, 2, 0.0), std::invalid_argument);
  const std::vector<float> far{-1e30f, 0, 1e30f, 1};
  CHECK_THROWS_AS(roi_from_landmarks(far, 2, 1e300), std::invalid_argument);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (std::size_t i = 0; i < 4; ++i) {
      std::vector<float> points = good;
      points[i] = bad;
      CHECK_THROWS_AS(roi_from_landmarks(points, 2), std::invalid_argument);
    }
  }
}
