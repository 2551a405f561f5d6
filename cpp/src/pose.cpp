#include "threedfa/pose.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace threedfa {

namespace {

constexpr double kDegrees = 57.29577951308232;  // 180 / pi
constexpr double kGimbalLock = 90.0 - 0.01;

struct Vector {
  double x, y, z;
};

double length(const Vector& v) { return std::sqrt(v.x * v.x + v.y * v.y + v.z * v.z); }
Vector scaled(const Vector& v, double s) { return {v.x * s, v.y * s, v.z * s}; }
Vector sum(const Vector& a, const Vector& b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
Vector cross(const Vector& a, const Vector& b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

}  // namespace

Pose decompose(const CameraMatrix& camera) {
  for (const float value : camera) {
    require(std::isfinite(value), "camera", "finite values", value);
  }
  const Vector row_x{camera[0], camera[1], camera[2]};
  const Vector row_y{camera[4], camera[5], camera[6]};
  const double length_x = length(row_x);
  const double length_y = length(row_y);
  require(length_x > 0 && length_y > 0, "camera", "first two rows that are not zero", "lengths ",
          length_x, " and ", length_y);

  // The diagonals of a rhombus are orthogonal; turned by 45 degrees they are the orthonormal pair
  // closest to its sides (Loewdin 1950).
  const Vector unit_x = scaled(row_x, 1 / length_x);
  const Vector unit_y = scaled(row_y, 1 / length_y);
  const Vector plus = sum(unit_x, unit_y);
  const Vector minus = sum(unit_x, scaled(unit_y, -1));
  const double shorter = std::min(length(plus), length(minus));
  require(shorter > 1e-6, "camera", "first two rows that are not parallel", "an angle of ", shorter,
          " radians between them");
  const double half = std::sqrt(0.5);
  const Vector p = scaled(plus, half / length(plus));
  const Vector m = scaled(minus, half / length(minus));
  const Vector x = sum(p, m);
  const Vector y = sum(p, scaled(m, -1));
  const Vector z = cross(x, y);

  Pose pose;
  std::size_t i = 0;
  for (const Vector& row : {x, y, z}) {
    for (const double value : {row.x, row.y, row.z}) {
      pose.rotation[i++] = static_cast<float>(value);
    }
  }
  pose.angles = angles_from_rotation(pose.rotation);
  pose.translation = {camera[3], camera[7], camera[11]};
  pose.scale = static_cast<float>((length_x + length_y) / 2);
  return pose;
}

Angles angles_from_rotation(const Rotation& rotation) {
  std::array<double, 9> r{};
  for (std::size_t i = 0; i < r.size(); ++i) r[i] = rotation[i];
  // R = Rz(-roll) Ry(yaw) Rx(-pitch):
  //   column 0: cos(yaw) cos(roll), -cos(yaw) sin(roll), -sin(yaw)
  //   row 2:    -sin(yaw), -cos(yaw) sin(pitch), cos(yaw) cos(pitch)
  const double yaw = kDegrees * std::atan2(-r[6], std::hypot(r[0], r[3]));
  double pitch, roll;
  if (std::abs(yaw) > kGimbalLock) {
    // With roll 0, row 1 is 0, cos(pitch), sin(pitch).
    pitch = kDegrees * std::atan2(r[5], r[4]);
    roll = 0;
  } else {
    pitch = kDegrees * std::atan2(-r[7], r[8]);
    roll = kDegrees * std::atan2(-r[3], r[0]);
  }
  // Adding 0 turns -0 into 0.
  return {static_cast<float>(yaw) + 0.0f, static_cast<float>(pitch) + 0.0f,
          static_cast<float>(roll) + 0.0f};
}

Rotation rotation_from_angles(const Angles& angles) {
  const double cy = std::cos(angles.yaw / kDegrees), sy = std::sin(angles.yaw / kDegrees);
  const double cp = std::cos(angles.pitch / kDegrees), sp = std::sin(angles.pitch / kDegrees);
  const double cr = std::cos(angles.roll / kDegrees), sr = std::sin(angles.roll / kDegrees);
  const double rows[9] = {cr * cy,
                          sr * cp - cr * sy * sp,
                          sr * sp + cr * sy * cp,
                          -sr * cy,
                          cr * cp + sr * sy * sp,
                          cr * sp - sr * sy * cp,
                          -sy,
                          -cy * sp,
                          cy * cp};
  Rotation rotation{};
  for (std::size_t i = 0; i < rotation.size(); ++i) rotation[i] = static_cast<float>(rows[i]);
  return rotation;
}

}  // namespace threedfa
