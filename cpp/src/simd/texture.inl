// Pixels between pixels. Part of loops.inl.

/// Two neighbouring columns (or rows) and the share of the second.
struct Neighbours {
  Ints first, second;
  Floats share;
};

THREEDFA_SIMD_INLINE Neighbours neighbours(Floats position, std::int32_t size) {
  // Also moves NaN to the border.
  const Floats inside = minimum(maximum(position, Floats{}), every(static_cast<float>(size - 1)));
  const Ints first = flooring(inside);
  return {first, first + select(less(first, every(size - 1)), every(1), Ints{}),
          inside - to_floats(first)};
}

/// The bytes of pixels, lowest channel first, and what follows them or zeros.
THREEDFA_SIMD_INLINE Words pixels_at(const SampledImage& image, Ints row, Ints column) {
  const Ints at = image.origin + row * image.row_stride + column * image.channels;
  // Four bytes are read; at the image's end some of them before the pixel.
  const Ints last = every(image.size - 4), from = select(less(last, at), last, at);
  return gathered(image.bytes, from) >> to_words((at - from) * 8);
}

void sample_points(const SampledImage& image, const float* points, std::size_t stride,
                   std::size_t count, float* out) {
  const auto channels = static_cast<std::size_t>(image.channels);
  for (std::size_t begin = 0; begin < count; begin += kLanes) {
    const std::size_t left = count - begin;
    const auto given = static_cast<std::int32_t>(left < kLanes ? left : kLanes);
    const Ints lanes = select(less(numbered(0), every(given)), numbered(0), Ints{});
    const auto* const bytes = reinterpret_cast<const std::uint8_t*>(points + begin * stride);
    const Ints at = lanes * static_cast<std::int32_t>(stride * sizeof(float));
    const Neighbours x = neighbours(as_floats(gathered(bytes, at)), image.width);
    const Neighbours y = neighbours(as_floats(gathered(bytes + sizeof(float), at)), image.height);
    const Floats w00 = (1.0f - x.share) * (1.0f - y.share), w10 = (1.0f - x.share) * y.share;
    const Floats w01 = x.share * (1.0f - y.share), w11 = x.share * y.share;
    Words upper_left = pixels_at(image, y.first, x.first);
    Words lower_left = pixels_at(image, y.second, x.first);
    Words upper_right = pixels_at(image, y.first, x.second);
    Words lower_right = pixels_at(image, y.second, x.second);
    for (std::size_t c = 0; c < channels; ++c) {
      float sample[kLanes];
      store(sample, w00 * low_byte(upper_left) + w10 * low_byte(lower_left) +
                        w01 * low_byte(upper_right) + w11 * low_byte(lower_right));
      float* const to = out + begin * channels + c;
      for (std::int32_t i = 0; i < given; ++i) {
        to[static_cast<std::size_t>(i) * channels] = sample[i];
      }
      upper_left = upper_left >> 8;
      lower_left = lower_left >> 8;
      upper_right = upper_right >> 8;
      lower_right = lower_right >> 8;
    }
  }
}
