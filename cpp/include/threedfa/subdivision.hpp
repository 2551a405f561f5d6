#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "threedfa/span.hpp"

namespace threedfa {

/// One step of the modified butterfly scheme (Dyn, Levin and Gregory 1990; Zorin, Schröder and
/// Sweldens 1996): each triangle becomes four. The vertices stay where they are and keep their
/// numbers; each edge gets a new one, a weighted sum of vertices around it:
///
/// - inside, with six triangles around both ends: the eight-point butterfly. A point missing at a
///   border is replaced by its mirror image through the edge's neighbour (a + c - b).
/// - inside, with an end that has another number of triangles around it, up to 16: that end's own
///   ring (section 3 of Zorin et al.); two such ends: the mean of both.
/// - on a border: four points of the border.
/// - elsewhere (an edge of three triangles, two that do not run the same way round, a corner of the
///   border): the middle of the edge.
///
/// Weights add up to 1, so moving, turning or projecting a mesh (any affine map) may come before or
/// after. The same operator serves any values at the vertices: coordinates, colours.
///
/// Made once for a mesh, by sorting its edges; `apply` costs some eight multiplications for each
/// new value. Immutable and safe to use from many threads.
class Subdivision {
 public:
  /// @param triangles T x 3, indices in 0..vertex_count-1
  /// @throws std::invalid_argument on an index out of range or more dense vertices than int32
  /// counts
  Subdivision(Span<const std::int32_t> triangles, std::size_t vertex_count);

  std::size_t base_count() const { return base_count_; }
  /// Vertices after the step: base_count() plus one for each edge.
  std::size_t dense_count() const { return base_count_ + edges_.size() / 2; }

  /// 4 T x 3, each triangle's four in its place, the middle one last; same sense of rotation.
  Span<const std::int32_t> triangles() const { return triangles_; }

  /// E x 2, the ends of each edge, in the order of the new vertices.
  Span<const std::int32_t> edges() const { return edges_; }

  /// Values at the dense vertices.
  /// @param base   base_count() x C, for any C
  /// @param dense  dense_count() x C
  /// @throws std::invalid_argument on sizes that do not match
  void apply(Span<const float> base, Span<float> dense) const;

 private:
  template <std::size_t kChannels>
  void combine(const float* base, std::size_t channels, std::size_t channel, float* out) const;

  std::size_t base_count_;
  std::vector<std::int32_t> triangles_, edges_;
  // Terms first_[e]..first_[e + 1] - 1 make the new vertex of edge e.
  std::vector<std::size_t> first_;
  std::vector<std::int32_t> vertices_;
  std::vector<float> weights_;
};

}  // namespace threedfa
