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
/// triangles, and (0, 0) and (1, 1) are centres of texels, both as 3DDFA_V2 does.
/// @param vertices  V x 3, image pixels
/// @param uv        V x 2, 0..1, v up
/// @param triangles T x 3
/// @param out       size x size x channels
void uv_texture(const ImageView& image, Span<const float> vertices, Span<const float> uv,
                Span<const std::int32_t> triangles, int size, Span<std::uint8_t> out);

/// What the picture shows at each texel of a surface, and how well the viewer sees that place.
///
/// Texel (column, row) is the point u = (column + 1/2) / size, v = 1 - (row + 1/2) / size of the
/// layout, which is where OpenGL, glTF and OBJ put it. The picture is sampled bilinearly; where a
/// texel covers more than a pixel, the mean of up to 64 x 64 samples over it is taken (a box
/// filter). Places outside the picture take the border's colour.
///
/// Visibility is the cosine of the angle between the surface's normal and the direction to
/// the viewer (orthographic, +z): 1 where it is seen from the front; 0 where it faces away, lies
/// behind another part of the mesh (z-buffer) or outside the picture; -1 where the layout has no
/// triangle. Where the layout overlaps itself, the first triangle counts.
/// @param points     K x V x 3, where each vertex of the layout is looked up: image pixels, z
///                   towards the viewer. The mesh itself, say, and its mirror image to see the
///                   other side; K of them at once share what the layout alone decides
/// @param normals    K x V x 3, unit normals at the points, +z towards the viewer
/// @param occluders  V x 3, the mesh that hides points: image pixels
/// @param uv         V x 2, 0..1, v up
/// @param triangles  T x 3, of the points and of the occluders
/// @param colors     K x size x size x channels; black where the layout has no triangle
/// @param visibility K x size x size
/// @throws std::invalid_argument on sizes that do not match, an index out of range, or points or
///         occluders that are not finite
void texture_map(const ImageView& image, Span<const float> points, Span<const float> normals,
                 Span<const float> occluders, Span<const float> uv,
                 Span<const std::int32_t> triangles, int size, Span<std::uint8_t> colors,
                 Span<float> visibility);

}  // namespace threedfa
