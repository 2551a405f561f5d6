#pragma once

#include <array>
#include <cstdint>

#include "threedfa/image.hpp"
#include "threedfa/roi.hpp"
#include "threedfa/span.hpp"

namespace threedfa {

/// How 8-bit pixels become network input: (pixel - mean[c]) * scale[c], where c counts the channels
/// of the output.
struct Normalization {
  std::array<float, 3> mean{0, 0, 0};
  std::array<float, 3> scale{1, 1, 1};
  bool reverse_channels = false;  ///< output channel c is input channel 2 - c (RGB <-> BGR)
};

/// Cuts `roi` out of an image and resizes it to height x width, in one pass.
///
/// The corners of the region are rounded to whole pixels (half to even); what lies outside the
/// image is black. The bilinear weights are 11-bit integers and pixel centres lie at (i + 0.5),
/// exactly as in OpenCV's 8-bit INTER_LINEAR, with its special case for a factor of exactly 2.
///
/// @param image 1, 3 or 4 channels
/// @param out   height x width x channels bytes
/// @throws std::invalid_argument if the region is empty after rounding, not finite, wholly outside
/// the
///         image, or more than 2^23 pixels away; if a side of image or output is not in 1..2^23
void crop_resize(const ImageView& image, const Roi& roi, int height, int width,
                 Span<std::uint8_t> out);

/// The same, written as normalised float32 planes: 3 x height x width.
/// @throws std::invalid_argument also if the image does not have 3 channels
void crop_resize_normalize(const ImageView& image, const Roi& roi, int height, int width,
                           const Normalization& normalization, Span<float> out);

/// The whole image resized to height x width and normalised: 3 x height x width. Where the size
/// does not change, pixels are only converted.
void resize_normalize(const ImageView& image, int height, int width,
                      const Normalization& normalization, Span<float> out);

/// The same for a network that sees grey: (grey - mean) * scale, height x width, where grey is
/// (38 red + 75 green + 15 blue) / 128: the luma of ITU-R BT.601 with weights of 7 bits. It is
/// resampled before it is normalised, and rounded only once, to 1/128 of a grey level.
/// @param image RGB
void resize_normalize_grey(const ImageView& image, int height, int width, float mean, float scale,
                           Span<float> out);

}  // namespace threedfa
