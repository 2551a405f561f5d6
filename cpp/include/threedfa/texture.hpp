#pragma once

#include <cstdint>

#include "threedfa/image.hpp"
#include "threedfa/span.hpp"

namespace threedfa {

/// Bilinear samples of an image at points in pixels (centres at whole numbers), 0..255. Points
/// outside are moved to the border.
/// @param points N x `stride` floats, of which x and y come first
/// @param out    N x channels
void sample_bilinear(const ImageView& image, Span<const float> points, int stride, Span<float> out);

/// The face's colours laid out by its texture coordinates, size x size x channels bytes; black
/// where the layout has no triangle. Colours are sampled at the vertices and interpolated over the
/// triangles, as 3DDFA_V2 does.
/// @param vertices  V x 3, image pixels
/// @param uv        V x 2, 0..1, v up
/// @param triangles T x 3
/// @param out       size x size x channels
void uv_texture(const ImageView& image, Span<const float> vertices, Span<const float> uv,
                Span<const std::int32_t> triangles, int size, Span<std::uint8_t> out);

}  // namespace threedfa
