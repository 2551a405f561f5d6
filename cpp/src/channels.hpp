#pragma once

#include <type_traits>

namespace threedfa {

/// Calls `work` with the number of channels, as a constant where it is a usual one, so that loops
/// over channels have a fixed length.
template <class Number, class Work>
void with_channels(Number channels, Work work) {
  switch (channels) {
    case 1:
      return work(std::integral_constant<Number, 1>{});
    case 3:
      return work(std::integral_constant<Number, 3>{});
    case 4:
      return work(std::integral_constant<Number, 4>{});
    default:
      return work(channels);
  }
}

}  // namespace threedfa
