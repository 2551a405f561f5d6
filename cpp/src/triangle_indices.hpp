#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "simd/loops.hpp"
#include "threedfa/span.hpp"

namespace threedfa {

/// Throws std::invalid_argument unless `triangles` holds whole triangles with indices in
/// 0..vertex_count-1.
inline void require_triangles(Span<const std::int32_t> triangles, std::size_t vertex_count) {
  require(triangles.size() % 3 == 0, "triangles", "3 indices for each triangle", triangles.size(),
          " elements");
  // Negative indices become large unsigned ones, so one maximum finds both kinds of error.
  const std::uint32_t largest = simd::loops().largest_index(triangles.data(), triangles.size());
  if (triangles.empty() || largest < vertex_count) {
    return;
  }
  require(false, "triangles",
          "indices from 0 to below the number of vertices, " + std::to_string(vertex_count),
          "index ", static_cast<std::int32_t>(largest));
}

/// Throws std::invalid_argument unless `vertices` holds x, y, z for each vertex; returns how many.
inline std::size_t require_vertices(Span<const float> vertices) {
  require(vertices.size() % 3 == 0, "vertices", "3 coordinates for each vertex", vertices.size(),
          " elements");
  return vertices.size() / 3;
}

}  // namespace threedfa
