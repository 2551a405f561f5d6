#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>

#include "threedfa/span.hpp"

namespace threedfa {

/// The lowest and the highest of each coordinate.
struct Bounds {
  std::array<float, 3> low, high;
};

/// Of x, y, z for each vertex. NaN counts for nothing; infinite, low above high, where nothing
/// does.
inline Bounds bounds_of(Span<const float> vertices) {
  // Four vertices at a time: twelve numbers that do not wait for one another.
  constexpr std::size_t kLanes = 12;
  std::array<float, kLanes> low, high;
  low.fill(std::numeric_limits<float>::infinity());
  high.fill(-std::numeric_limits<float>::infinity());
  const auto look = [&](std::size_t first, std::size_t count) {
    for (std::size_t k = 0; k < count; ++k) {
      const float value = vertices[first + k];
      low[k] = value < low[k] ? value : low[k];
      high[k] = value > high[k] ? value : high[k];
    }
  };
  std::size_t i = 0;
  for (; i + kLanes <= vertices.size(); i += kLanes) look(i, kLanes);
  look(i, vertices.size() - i);
  Bounds bounds{{low[0], low[1], low[2]}, {high[0], high[1], high[2]}};
  for (std::size_t k = 3; k < kLanes; ++k) {
    bounds.low[k % 3] = std::min(bounds.low[k % 3], low[k]);
    bounds.high[k % 3] = std::max(bounds.high[k % 3], high[k]);
  }
  return bounds;
}

}  // namespace threedfa
