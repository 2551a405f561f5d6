// Bounds of numbers. Part of loops.inl.

void find_bounds(const float* values, std::size_t count, float* low, float* high) {
  constexpr std::size_t kLanes = Loops::kBoundsLanes;
  float least[kLanes], most[kLanes];
  memcpy(least, low, sizeof least);
  memcpy(most, high, sizeof most);
  const auto look = [&least, &most](const float* block, std::size_t size) {
    for (std::size_t k = 0; k < size; ++k) {
      least[k] = block[k] < least[k] ? block[k] : least[k];
      most[k] = block[k] > most[k] ? block[k] : most[k];
    }
  };
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) look(values + i, kLanes);
  look(values + i, count - i);
  memcpy(low, least, sizeof least);
  memcpy(high, most, sizeof most);
}

std::uint32_t largest_index(const std::int32_t* indices, std::size_t count) {
  std::uint32_t largest = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto index = static_cast<std::uint32_t>(indices[i]);
    largest = index > largest ? index : largest;
  }
  return largest;
}
