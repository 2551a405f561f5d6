#pragma once

#include <array>

#include "threedfa/camera.hpp"

namespace threedfa {

/// A proper rotation (orthonormal, determinant +1), row by row. It maps object axes to the image's
/// axes with y turned up: the identity for a frontal face.
using Rotation = std::array<float, 9>;

/// Head angles in degrees. R = Rz(-roll) Ry(yaw) Rx(-pitch): roll is a turn in the picture plane.
struct Angles {
  float yaw = 0;    ///< > 0: the nose points to the image's right; -90..90
  float pitch = 0;  ///< > 0: the nose points up; -180..180
  float roll = 0;   ///< > 0: clockwise in the image; -180..180
};

/// Rigid part of a weak-perspective camera.
struct Pose {
  Angles angles;
  Rotation rotation{};
  std::array<float, 3> translation{};  ///< the camera's fourth column, crop units
  float scale = 0;                     ///< mean length of the camera's first two rows
};

/// Splits a camera into scale, rotation and translation. The rotation's first two rows are the
/// orthonormal pair closest to the camera's first two rows, each taken at unit length; the third is
/// their cross product.
/// @throws std::invalid_argument if a value is not finite or the first two rows are zero or
/// parallel
Pose decompose(const CameraMatrix& camera);

/// Angles of a rotation. Where yaw is within 0.01 degrees of +-90 (gimbal lock) only
/// the sum or difference of pitch and roll is defined: roll is 0 and pitch carries it all.
Angles angles_from_rotation(const Rotation& rotation);

/// The inverse of `angles_from_rotation`.
Rotation rotation_from_angles(const Angles& angles);

}  // namespace threedfa
