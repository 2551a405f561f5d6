#pragma once

#include <cstdint>
#include <vector>

#include "threedfa/span.hpp"

namespace threedfa {

/// Greedy non-maximum suppression.
///
/// Boxes are visited by falling score; each box that still stands is kept and removes every later
/// box whose intersection over union with it is at least `iou_threshold`. Equal scores are visited
/// by falling index (the reverse of a stable ascending sort), so the result is deterministic.
///
/// `offset` is added to each side length before areas and overlaps are computed: 0 for boxes in
/// continuous coordinates, 1 for the "+1 pixel" areas of Fast R-CNN (Girshick 2015) and FaceBoxes.
/// Areas and overlaps are computed in float32, the quotient is compared in double precision.
/// Boxes whose union is not positive, or beyond float32 (sides of 1e19), overlap nothing.
///
/// @param boxes         N x 4, x1 y1 x2 y2, finite
/// @param scores        N, finite
/// @param iou_threshold in 0..1
/// @param offset        0 or more, finite
/// @return indices of the kept boxes, best first
/// @throws std::invalid_argument on sizes that do not match, values that are not finite, a
/// threshold
///         outside 0..1 or a negative offset
std::vector<std::int64_t> nms(Span<const float> boxes, Span<const float> scores,
                              double iou_threshold, float offset = 0.0f);

}  // namespace threedfa
