#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "threedfa/pose.hpp"

using threedfa::Angles;
using threedfa::angles_from_rotation;
using threedfa::CameraMatrix;
using threedfa::decompose;
using threedfa::Pose;
using threedfa::Rotation;
using threedfa::rotation_from_angles;

namespace {

double determinant(const Rotation& r) {
  return static_cast<double>(r[0]) * (r[4] * r[8] - r[5] * r[7]) -
         static_cast<double>(r[1]) * (r[3] * r[8] - r[5] * r[6]) +
         static_cast<double>(r[2]) * (r[3] * r[7] - r[4] * r[6]);
}

// The largest element of R R^T - 1.
double orthogonality_error(const Rotation& r) {
  double worst = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    for (std::size_t j = 0; j < 3; ++j) {
      double dot = i == j ? -1 : 0;
      for (std::size_t k = 0; k < 3; ++k) {
        dot += static_cast<double>(r[3 * i + k]) * r[3 * j + k];
      }
      worst = std::max(worst, std::abs(dot));
    }
  }
  return worst;
}

double difference(const Rotation& a, const Rotation& b) {
  double worst = 0;
  for (std::size_t i = 0; i < 9; ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - b[i]));
  }
  return worst;
}

CameraMatrix camera_of(const Rotation& r, float scale) {
  return {scale * r[0], scale * r[1], scale * r[2], 10,           scale * r[3], scale * r[4],
          scale * r[5], 20,           scale * r[6], scale * r[7], scale * r[8], 30};
}

// Where the nose (+z) and the top of the head (+y) point, in axes x right, y up.
struct Directions {
  float nose_x, nose_y, top_x;
};
Directions directions(const Angles& angles) {
  const Rotation r = rotation_from_angles(angles);
  return {r[2], r[5], r[1]};
}

}  // namespace

TEST_CASE("pose: the angles' signs") {
  CHECK(difference(rotation_from_angles({}), {1, 0, 0, 0, 1, 0, 0, 0, 1}) == 0);
  const Directions yaw = directions({30, 0, 0});  // nose to the image's right
  CHECK(yaw.nose_x == doctest::Approx(0.5));
  CHECK(yaw.nose_y == doctest::Approx(0));
  CHECK(yaw.top_x == doctest::Approx(0));
  const Directions pitch = directions({0, 30, 0});  // nose up
  CHECK(pitch.nose_y == doctest::Approx(0.5));
  CHECK(pitch.nose_x == doctest::Approx(0));
  const Directions roll = directions({0, 0, 30});  // clockwise: the top moves right
  CHECK(roll.top_x == doctest::Approx(0.5));
  CHECK(roll.nose_x == doctest::Approx(0));
  // Roll is a turn in the picture plane, whatever the other angles: it turns where the nose points.
  const Directions turned = directions({30, 0, 90});
  CHECK(turned.nose_x == doctest::Approx(0).epsilon(1e-6));
  CHECK(turned.nose_y == doctest::Approx(-0.5));
}

TEST_CASE("pose: a frontal face has angles of plain 0") {
  for (const Angles& angles : {angles_from_rotation({1, 0, 0, 0, 1, 0, 0, 0, 1}),
                               angles_from_rotation({1, 0, 0, 0, 1, -0.0f, -0.0f, -0.0f, 1})}) {
    for (const float angle : {angles.yaw, angles.pitch, angles.roll}) {
      CHECK(angle == 0);
      CHECK_FALSE(std::signbit(angle));
    }
  }
}

TEST_CASE("pose: angles survive the round trip") {
  std::mt19937 random(17);
  std::uniform_real_distribution<float> whole(-179.9f, 179.9f), half(-89.98f, 89.98f);
  for (int round = 0; round < 5000; ++round) {
    Angles angles{half(random), whole(random), whole(random)};
    if (round % 5 == 0) {  // close to gimbal lock
      angles.yaw = std::copysign(89.0f + 0.98f * std::abs(half(random)) / 90.0f, angles.yaw);
    }
    const Rotation rotation = rotation_from_angles(angles);
    CHECK(orthogonality_error(rotation) < 3e-7);
    CHECK(determinant(rotation) == doctest::Approx(1).epsilon(1e-6));
    const Angles again = angles_from_rotation(rotation);
    CHECK(std::abs(again.yaw - angles.yaw) < 1e-4);
    CHECK(std::abs(again.pitch - angles.pitch) < 1e-4);
    CHECK(std::abs(again.roll - angles.roll) < 1e-4);
  }
}

TEST_CASE("pose: at gimbal lock roll is 0 and the rotation survives") {
  std::mt19937 random(19);
  std::uniform_real_distribution<float> whole(-180, 180), off(-0.009f, 0.009f);
  for (int round = 0; round < 2000; ++round) {
    const float side = round % 2 == 0 ? 90.0f : -90.0f;
    const bool exact = round % 4 < 2;
    const Angles angles{exact ? side : side + off(random), whole(random), whole(random)};
    const Rotation rotation = rotation_from_angles(angles);
    const Angles again = angles_from_rotation(rotation);
    CHECK(again.roll == 0);
    CHECK(std::abs(std::abs(again.yaw) - 90.0f) < 0.011);
    CHECK(std::signbit(again.yaw) == std::signbit(side));
    // What is left out is below the width of the lock: 0.01 degrees, twice.
    CHECK(difference(rotation_from_angles(again), rotation) < 4e-4);
  }
}

TEST_CASE("pose: a rotation times a scale is taken apart") {
  std::mt19937 random(23);
  std::uniform_real_distribution<float> whole(-179.9f, 179.9f), half(-89.9f, 89.9f),
      exponent(-8, 3);
  for (int round = 0; round < 2000; ++round) {
    const Angles angles{half(random), whole(random), whole(random)};
    const Rotation rotation = rotation_from_angles(angles);
    const float scale = std::pow(10.0f, exponent(random));
    const Pose pose = decompose(camera_of(rotation, scale));
    CHECK(difference(pose.rotation, rotation) < 1e-6);
    CHECK(pose.scale == doctest::Approx(scale).epsilon(1e-6));
    CHECK(pose.translation == std::array<float, 3>{10, 20, 30});
    CHECK(std::abs(pose.angles.yaw - angles.yaw) < 1e-2);
  }
}

TEST_CASE("pose: any camera gives a proper rotation, the closest to its rows") {
  std::mt19937 random(29);
  std::normal_distribution<float> normal;
  for (int round = 0; round < 2000; ++round) {
    CameraMatrix camera{};
    for (float& value : camera) value = normal(random);
    const Pose pose = decompose(camera);
    CHECK(orthogonality_error(pose.rotation) < 5e-7);
    CHECK(determinant(pose.rotation) == doctest::Approx(1).epsilon(1e-6));
    // Closest: both rows are turned by the same angle, within the rows' plane.
    double norm[2] = {0, 0}, kept[2] = {0, 0}, out_of_plane[2] = {0, 0};
    for (std::size_t row = 0; row < 2; ++row) {
      for (std::size_t i = 0; i < 3; ++i) {
        const double value = camera[4 * row + i];
        norm[row] += value * value;
        kept[row] += value * pose.rotation[3 * row + i];
        out_of_plane[row] += value * pose.rotation[6 + i];
      }
      norm[row] = std::sqrt(norm[row]);
      CHECK(std::abs(out_of_plane[row]) / norm[row] < 1e-6);
    }
    CHECK(kept[0] / norm[0] == doctest::Approx(kept[1] / norm[1]).epsilon(1e-6));
    CHECK(kept[0] > 0);
    CHECK(pose.scale == doctest::Approx((norm[0] + norm[1]) / 2).epsilon(1e-6));
    CHECK(difference(rotation_from_angles(pose.angles), pose.rotation) < 1e-3);
  }
}

TEST_CASE("pose: cameras without a rotation are refused") {
  const CameraMatrix good{1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0};
  CHECK_NOTHROW(decompose(good));
  for (std::size_t i = 0; i < 12; ++i) {
    for (const float value :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      CameraMatrix bad = good;
      bad[i] = value;
      CHECK_THROWS_AS(decompose(bad), std::invalid_argument);
    }
  }
  CHECK_THROWS_AS(decompose({0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0}), std::invalid_argument);
  CHECK_THROWS_AS(decompose({1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0}), std::invalid_argument);
  CHECK_THROWS_AS(decompose({1, 2, 3, 0, 1, 2, 3, 0, 0, 0, 1, 0}), std::invalid_argument);
  CHECK_THROWS_AS(decompose({1, 2, 3, 0, -2, -4, -6, 0, 0, 0, 1, 0}), std::invalid_argument);
  // Extreme but sound sizes.
  const Pose tiny = decompose({1e-38f, 0, 0, 0, 0, 1e-38f, 0, 0, 0, 0, 1, 0});
  const Pose huge = decompose({3e38f, 0, 0, 0, 0, 3e38f, 0, 0, 0, 0, 1, 0});
  for (const Pose& pose : {tiny, huge}) {
    CHECK(difference(pose.rotation, {1, 0, 0, 0, 1, 0, 0, 0, 1}) < 1e-6);
  }
}
