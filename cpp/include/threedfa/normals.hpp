#pragma once

#include <cstdint>
#include <vector>

#include "threedfa/span.hpp"
#include "threedfa/vertex_rings.hpp"

namespace threedfa {

/// Unit vertex normals: the sum of the cross products (twice the area times the unit normal) of the
/// triangles around each vertex, normalised. A vertex without area around it gets (0, 0, 0).
/// Normals point to the side from which the triangles run counter-clockwise in the vertices'
/// own (right-handed) axes.
/// @param vertices  V x 3
/// @param triangles T x 3, indices in 0..V-1
/// @param workspace memory to work in: where it is kept between calls, nothing is allocated
/// @param out       V x 3
/// @throws std::invalid_argument on sizes that do not match or an index out of range
void vertex_normals(Span<const float> vertices, Span<const std::int32_t> triangles,
                    std::vector<double>& workspace, Span<float> out);

/// The same with memory for this call.
void vertex_normals(Span<const float> vertices, Span<const std::int32_t> triangles,
                    Span<float> out);

/// The same for a mesh whose triangles are known beforehand: faster, and without memory to work in.
/// Results differ by rounding.
/// @param rings of the mesh's triangles
void vertex_normals(Span<const float> vertices, const VertexRings& rings, Span<float> out);

}  // namespace threedfa
