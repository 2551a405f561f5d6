#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "threedfa/span.hpp"

namespace threedfa {

/// Around each vertex of a mesh one closed walk over vertices, whose area vector (half the sum of
/// the cross products of successive points) is that of all triangles around the vertex together.
///
/// It is the ring of neighbours where the triangles go all around. Where they do not (at a border,
/// or where several sheets meet), it goes through the vertex itself before each fan of triangles.
/// Triangles that name a vertex twice have no area and are left out.
///
/// Made once for a mesh, in time that grows with its triangles. Immutable and safe to use from many
/// threads.
class VertexRings {
 public:
  /// Vertices of one block: their walks are stored by length, in pairs.
  static constexpr std::size_t kBlock = 64;

  /// Two walks of one length. The shorter one of two goes on at its first point, which has no area.
  struct Pair {
    std::uint32_t points;   ///< of each walk: even, at least 4
    std::uint16_t slot[2];  ///< their vertices in the block; kBlock for none
  };

  /// Vertices kBlock * b to kBlock * b + size - 1. Those without a walk, for
  /// they have no triangle, are in no pair.
  struct Block {
    std::size_t size;
    std::size_t without_walk;
    Span<const Pair> pairs;
    /// First points of the first pair, its second points, ... first points of the next pair, ...:
    /// three times the number of the vertex, where its coordinates are.
    const std::uint32_t* corners;
    /// Whether a walk goes through the last vertex of all, behind which there is no memory.
    bool reaches_last;
  };

  /// @param triangles T x 3, indices in 0..vertex_count-1
  /// @throws std::invalid_argument on an index out of range, or more than 2^30 vertices
  VertexRings(Span<const std::int32_t> triangles, std::size_t vertex_count);

  std::size_t vertex_count() const { return vertex_count_; }
  std::size_t block_count() const { return starts_.size(); }
  Block block(std::size_t b) const;

 private:
  struct Start {
    std::size_t pair, corner, without_walk;
    bool reaches_last;
  };

  std::size_t vertex_count_;
  std::vector<std::uint32_t> corners_;
  std::vector<Pair> pairs_;
  std::vector<Start> starts_;  // of the blocks
};

}  // namespace threedfa
