#pragma once

#include "threedfa/span.hpp"

namespace threedfa {

/// A square region of interest in pixels of the image; not rounded, not clipped.
struct Roi {
  double x1 = 0, y1 = 0, x2 = 0, y2 = 0;
};

/// How a detector's box becomes the square that a regressor was trained on.
struct BoxRoiRule {
  double scale = 1.58;       ///< side of the square / mean side of the box
  double shift_y = 0.14;     ///< centre moved down by this part of the mean side
  bool integer_side = true;  ///< side truncated to whole pixels, as 3DDFA_V2 does
};

/// Square around a box x1 y1 x2 y2. Mean side = (width + height) / 2.
/// @throws std::invalid_argument if the box is not finite, or x2 <= x1 or y2 <= y1, or the
/// truncated
///         side is 0
Roi roi_from_box(double x1, double y1, double x2, double y2, const BoxRoiRule& rule = {});

/// Square around landmarks: centred on their bounding rectangle, its side is `scale` times the
/// longer side (3DDFA_V2: the diagonal of the enclosing square, sqrt(2)).
/// @param points N x `stride` floats, of which x and y come first; N >= 2, finite
/// @throws std::invalid_argument if there are fewer than two points or they coincide
Roi roi_from_landmarks(Span<const float> points, int stride = 3, double scale = 1.4142135623730951);

}  // namespace threedfa
