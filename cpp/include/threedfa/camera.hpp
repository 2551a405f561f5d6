#pragma once

#include <array>

#include "threedfa/roi.hpp"
#include "threedfa/span.hpp"

namespace threedfa {

/// A 3 x 4 affine camera, row by row: object space to the regressor's input, whose pixels are
/// counted from 1 with y up (the convention of 300W-LP and 3DDFA).
using CameraMatrix = std::array<float, 12>;

/// Object-space points to the image: crop = R p + t, then x - 1, input_size - y, scaled by the
/// region's side over `input_size` and shifted to the region's corner. z is the rotated depth in
/// pixels (mean of the x and y scale), growing towards the viewer, zero at the model's origin, so
/// sparse and dense points of a face share one zero.
/// @param points N x 3, object space
/// @param out    N x 3, image pixels; may be the same memory as `points`
void project(Span<const float> points, const CameraMatrix& camera, const Roi& roi, int input_size,
             Span<float> out);

/// The matrix that `project` applies to (x, y, z, 1): object space to image pixels, with
/// y down. Its third row has no translation.
CameraMatrix image_projection(const CameraMatrix& camera, const Roi& roi, int input_size);

}  // namespace threedfa
