#pragma once

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
  for (std::size_t i = 0; i < vertices.size(); i += kLanes) {
    const std::size_t left = vertices.size() - i;
    if (left < kLanes) {
      for (std::size_t k = 0; k < left; ++k) {
        const float value = vertices[i + k];
        low[k] = value < low[k] ? value : low[k];
        high[k] = value > high[k] ? value : high[k];
      }
      break;
    }
    for (std::size_t k = 0; k < kLanes; ++k) {
      const float value = vertices[i + k];
      low[k] = value < low[k] ? value : low[k];
      high[k] = value > high[k] ? value : high[k];
    }
  }
  Bounds bounds{{low[0], low[1], low[2]}, {high[0], high[1], high[2]}};
  for (std::size_t k = 3; k < kLanes; ++k) {
    bounds.low[k % 3] = low[k] < bounds.low[k % 3] ? low[k] : bounds.low[k % 3];
    bounds.high[k % 3] = high[k] > bounds.high[k % 3] ? high[k] : bounds.high[k % 3];
  }
  return bounds;
}

}  // namespace threedfa
