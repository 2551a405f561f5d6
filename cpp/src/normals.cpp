#include "threedfa/normals.hpp"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "simd/loops.hpp"
#include "triangle_indices.hpp"

namespace threedfa {
namespace {

/// The loops for work that may read behind the coordinates of its vertices.
const simd::Loops& loops_for(bool reaches_last_vertex) {
  return reaches_last_vertex ? simd::scalar_loops : simd::loops();
}

/// For triangles so small or large that products of floats vanish or overflow.
void write_units_in_double(Span<const float> vertices, const VertexRings::Block& block,
                           float* out) {
  double areas[4 * (VertexRings::kBlock + 1)] = {};
  const std::uint32_t* corners = block.corners;
  for (const VertexRings::Pair& pair : block.pairs) {
    for (std::size_t walk = 0; walk < 2; ++walk) {
      // From the corner that is k points after the first one to the first.
      const auto from = [&](std::size_t k, std::size_t axis) {
        return double(vertices[corners[walk] + axis]) -
               double(vertices[corners[2 * k + walk] + axis]);
      };
      double* const area = areas + 4 * pair.slot[walk];
      for (std::size_t k = 1; k + 1 < pair.points; ++k) {
        area[0] += from(k, 0) * from(k + 1, 1) - from(k, 1) * from(k + 1, 0);
        area[1] += from(k, 1) * from(k + 1, 2) - from(k, 2) * from(k + 1, 1);
        area[2] += from(k, 2) * from(k + 1, 0) - from(k, 0) * from(k + 1, 2);
      }
    }
    corners += 2 * std::size_t{pair.points};
  }
  simd::loops().unit_vectors(areas, block.size, out);
}

}  // namespace

void vertex_normals(Span<const float> vertices, Span<const std::int32_t> triangles,
                    std::vector<double>& workspace, Span<float> out) {
  const std::size_t count = require_vertices(vertices);
  require_size("out", vertices.size(), out.size());
  if (count == 0 || triangles.size() % 3 != 0) require_triangles(triangles, count);
  workspace.assign(4 * count, 0.0);
  constexpr std::size_t kSome = 3 * 256;
  for (std::size_t begin = 0; begin < triangles.size(); begin += kSome) {
    const Span<const std::int32_t> some(triangles.data() + begin,
                                        std::min(kSome, triangles.size() - begin));
    const std::size_t largest = simd::loops().largest_index(some.data(), some.size());
    const bool reaches_last = largest + 1 >= count;
    if (reaches_last) require_triangles(some, count);
    loops_for(reaches_last)
        .scatter_areas(vertices.data(), some.data(), some.size() / 3, workspace.data());
  }
  simd::loops().unit_vectors(workspace.data(), count, out.data());
}

void vertex_normals(Span<const float> vertices, Span<const std::int32_t> triangles,
                    Span<float> out) {
  std::vector<double> workspace;
  vertex_normals(vertices, triangles, workspace, out);
}

void vertex_normals(Span<const float> vertices, const VertexRings& rings, Span<float> out) {
  constexpr std::size_t kBlock = VertexRings::kBlock;
  require_size("vertices", 3 * rings.vertex_count(), vertices.size());
  require_size("out", vertices.size(), out.size());
  float areas[4 * (kBlock + 1)];  // one more for a walk without a vertex
  for (std::size_t b = 0; b < rings.block_count(); ++b) {
    const VertexRings::Block block = rings.block(b);
    if (block.without_walk > 0) std::fill_n(areas, 4 * kBlock, 0.0f);
    loops_for(block.reaches_last)
        .walk_areas(vertices.data(), block.pairs.begin(), block.pairs.end(), block.corners, areas);
    float* const to = out.data() + 3 * kBlock * b;
    const std::size_t unusual = simd::loops().unit_float_vectors(areas, block.size, to);
    if (unusual > block.without_walk) write_units_in_double(vertices, block, to);
  }
}

}  // namespace threedfa
