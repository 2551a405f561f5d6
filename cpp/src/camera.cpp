#include "threedfa/camera.hpp"

#include <cmath>
#include <cstddef>

namespace threedfa {
namespace {

void require_finite(const CameraMatrix& camera, const char* expected) {
  for (const float value : camera) {
    require(std::isfinite(value), "camera", expected, value);
  }
}

}  // namespace

CameraMatrix image_projection(const CameraMatrix& camera, const Roi& roi, int input_size) {
  require_finite(camera, "finite values");
  require(input_size >= 1, "input_size", "1 or more", input_size);
  const double width = roi.x2 - roi.x1;
  const double height = roi.y2 - roi.y1;
  require(std::isfinite(width) && std::isfinite(height) && width > 0 && height > 0, "roi",
          "finite corners with x1 < x2 and y1 < y2", width, " x ", height, " pixels");

  const double scale_x = width / input_size;
  const double scale_y = height / input_size;
  const double scale_z = (scale_x + scale_y) / 2;
  CameraMatrix matrix{};
  for (std::size_t i = 0; i < 3; ++i) {
    matrix[i] = static_cast<float>(scale_x * camera[i]);
    matrix[4 + i] = static_cast<float>(-scale_y * camera[4 + i]);
    matrix[8 + i] = static_cast<float>(scale_z * camera[8 + i]);
  }
  matrix[3] = static_cast<float>(scale_x * (camera[3] - 1.0) + roi.x1);
  matrix[7] = static_cast<float>(scale_y * (static_cast<double>(input_size) - camera[7]) + roi.y1);
  require_finite(matrix, "values that fit float32 in the image's pixels, too");
  return matrix;
}

void project(Span<const float> points, const CameraMatrix& camera, const Roi& roi, int input_size,
             Span<float> out) {
  require(points.size() % 3 == 0, "points", "a multiple of 3 elements", points.size());
  require_size("out", points.size(), out.size());
  const CameraMatrix m = image_projection(camera, roi, input_size);
  for (std::size_t i = 0; i < points.size(); i += 3) {
    const float x = points[i], y = points[i + 1], z = points[i + 2];
    out[i] = m[0] * x + m[1] * y + m[2] * z + m[3];
    out[i + 1] = m[4] * x + m[5] * y + m[6] * z + m[7];
    out[i + 2] = m[8] * x + m[9] * y + m[10] * z;
  }
}

}  // namespace threedfa
