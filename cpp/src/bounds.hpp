#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>

#include "simd/loops.hpp"
#include "threedfa/span.hpp"

namespace threedfa {

/// The lowest and the highest of each coordinate.
struct Bounds {
  std::array<float, 3> low, high;
};

/// Of x, y, z for each vertex. NaN counts for nothing; infinite, low above high, where nothing
/// does.
inline Bounds bounds_of(Span<const float> vertices) {
  constexpr std::size_t kLanes = simd::Loops::kBoundsLanes;
  std::array<float, kLanes> low, high;
  low.fill(std::numeric_limits<float>::infinity());
  high.fill(-std::numeric_limits<float>::infinity());
  simd::loops().find_bounds(vertices.data(), vertices.size(), low.data(), high.data());
  Bounds bounds{{low[0], low[1], low[2]}, {high[0], high[1], high[2]}};
  for (std::size_t k = 3; k < kLanes; ++k) {
    bounds.low[k % 3] = std::min(bounds.low[k % 3], low[k]);
    bounds.high[k % 3] = std::max(bounds.high[k % 3], high[k]);
  }
  return bounds;
}

}  // namespace threedfa
