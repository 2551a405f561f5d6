#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "threedfa/camera.hpp"

using threedfa::CameraMatrix;
using threedfa::image_projection;
using threedfa::project;
using threedfa::Roi;

TEST_CASE("camera: the identity maps the crop's corners to the region's") {
  // Crop pixels are counted from 1 with y up: (1, 120) is its top left, (121, 0) one past its
  // bottom right.
  const CameraMatrix identity{1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0};
  const Roi roi{10, 20, 250, 200};
  const std::vector<float> points{1, 120, 0, 121, 0, 5, 61, 60, -2};
  std::vector<float> out(9);
  project(points, identity, roi, 120, out);
  CHECK(out == std::vector<float>{10, 20, 0, 250, 200, 8.75f, 130, 110, -3.5f});
}

TEST_CASE("camera: z ignores the translation, so the model's origin has z = 0") {
  const CameraMatrix camera{1, 0, 0, 60, 0, 1, 0, 60, 0, 0, 1, -6666};
  const std::vector<float> points{0, 0, 0, 0, 0, 10};
  std::vector<float> out(6);
  project(points, camera, Roi{0, 0, 240, 240}, 120, out);
  CHECK(out == std::vector<float>{118, 120, 0, 118, 120, 20});
}

TEST_CASE("camera: project follows its definition for random cameras") {
  std::mt19937 random(5);
  std::uniform_real_distribution<double> uniform(-1, 1);
  for (int round = 0; round < 200; ++round) {
    CameraMatrix camera{};
    for (float& value : camera) value = static_cast<float>(uniform(random) * 5e-4);
    for (const std::size_t i : {3u, 7u, 11u}) camera[i] = static_cast<float>(uniform(random) * 100);
    Roi roi{uniform(random) * 500, uniform(random) * 500, 0, 0};
    roi.x2 = roi.x1 + 100 + 50 * uniform(random);
    roi.y2 = roi.y1 + 100 + 50 * uniform(random);
    std::vector<float> points(30);
    for (float& value : points) value = static_cast<float>(uniform(random) * 1e5);

    std::vector<float> out(points.size()), in_place = points;
    project(points, camera, roi, 120, out);
    project(in_place, camera, roi, 120, in_place);
    CHECK(in_place == out);

    const CameraMatrix matrix = image_projection(camera, roi, 120);
    CHECK(matrix[11] == 0.0f);
    const double sx = (roi.x2 - roi.x1) / 120, sy = (roi.y2 - roi.y1) / 120;
    for (std::size_t p = 0; p < points.size(); p += 3) {
      double crop[3], by_matrix[3];
      for (std::size_t r = 0; r < 3; ++r) {
        crop[r] = r < 2 ? camera[4 * r + 3] : 0.0;
        by_matrix[r] = matrix[4 * r + 3];
        for (std::size_t c = 0; c < 3; ++c) {
          crop[r] += static_cast<double>(camera[4 * r + c]) * points[p + c];
          by_matrix[r] += static_cast<double>(matrix[4 * r + c]) * points[p + c];
        }
      }
      const double expected[3] = {(crop[0] - 1) * sx + roi.x1, (120 - crop[1]) * sy + roi.y1,
                                  crop[2] * (sx + sy) / 2};
      for (std::size_t r = 0; r < 3; ++r) {
        CHECK(std::abs(out[p + r] - expected[r]) < 5e-4);
        CHECK(std::abs(by_matrix[r] - expected[r]) < 5e-4);
      }
    }
  }
}

TEST_CASE("camera: bad arguments are refused") {
  const CameraMatrix camera{1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0};
  const Roi roi{0, 0, 10, 10};
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  CHECK_THROWS_AS(image_projection(camera, roi, 0), std::invalid_argument);
  for (const Roi& bad : {Roi{0, 0, 0, 10}, Roi{0, 10, 10, 0}, Roi{nan, 0, 10, 10},
                         Roi{0, 0, infinity, 10}, Roi{0, -infinity, 10, infinity}}) {
    CHECK_THROWS_AS(image_projection(camera, bad, 120), std::invalid_argument);
  }
  for (std::size_t i = 0; i < 12; ++i) {
    CameraMatrix bad = camera;
    bad[i] = static_cast<float>(nan);
    CHECK_THROWS_AS(image_projection(bad, roi, 120), std::invalid_argument);
  }
  CameraMatrix huge = camera;
  huge[3] = 1e38f;
  CHECK_THROWS_WITH(image_projection(huge, Roi{0, 0, 1e6, 1e6}, 120),
                    "camera: expected values that fit float32 in the image's pixels, too, got inf");
  std::vector<float> points(6), four(4), three(3);
  CHECK_THROWS_AS(project(four, camera, roi, 120, four), std::invalid_argument);
  CHECK_THROWS_AS(project(points, camera, roi, 120, three), std::invalid_argument);
}
