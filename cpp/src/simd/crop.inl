// Resampling and normalising pixels, in colour and grey. Part of loops.inl.

void resample_planes(const std::uint8_t* row, const std::int32_t* places,
                     const std::uint32_t* weights, std::size_t count, std::int16_t* sums) {
  std::size_t i = 0;
#ifdef THREEDFA_SIMD_AVX2
  std::int16_t *const red = sums, *const green = sums + count, *const blue = green + count;
  // Of the bytes r g b r g b * * of two pixels, both reds and both greens, or both blues, become
  // 16-bit pairs, which one instruction multiplies by the pair of weights and adds.
  constexpr char kNo = -1;
  const __m128i reds_greens =
      _mm_setr_epi8(0, kNo, 3, kNo, 1, kNo, 4, kNo, 8, kNo, 11, kNo, 9, kNo, 12, kNo);
  const __m128i blues =
      _mm_setr_epi8(2, kNo, 5, kNo, kNo, kNo, kNo, kNo, 10, kNo, 13, kNo, kNo, kNo, kNo, kNo);
#endif
#ifdef THREEDFA_SIMD_AVX512
  alignas(64) std::int16_t order[32];
  for (std::int16_t k = 0; k < 32; ++k) order[k] = static_cast<std::int16_t>(4 * (k % 8) + k / 8);
  const __m512i in_order = _mm512_load_si512(order);
  const auto sum_up = [](__m512i pixels, __m128i channels,
                         __m512i pairs) __attribute__((always_inline)) {
    const __m512i chosen = _mm512_shuffle_epi8(pixels, _mm512_broadcast_i32x4(channels));
    return _mm512_srai_epi32(_mm512_madd_epi16(chosen, pairs), 4);
  };
  for (; i + 16 <= count; i += 16) {
    __m512i red_green = _mm512_setzero_si512(), blue_none = red_green;
    for (std::size_t half = 0; half < 2; ++half) {
      const __m256i place =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(places + i + 8 * half));
      const __m256i bytes = _mm256_add_epi32(place, _mm256_slli_epi32(place, 1));
      const __m512i pixels = _mm512_i32gather_epi64(bytes, row, 1);
      const __m512i weight = _mm512_cvtepu32_epi64(
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + i + 8 * half)));
      const __m512i pairs = _mm512_or_si512(weight, _mm512_slli_epi64(weight, 32));
      const auto shift = static_cast<unsigned>(16 * half);
      red_green =
          _mm512_or_si512(red_green, _mm512_slli_epi32(sum_up(pixels, reds_greens, pairs), shift));
      blue_none =
          _mm512_or_si512(blue_none, _mm512_slli_epi32(sum_up(pixels, blues, pairs), shift));
    }
    red_green = _mm512_permutexvar_epi16(in_order, red_green);
    blue_none = _mm512_permutexvar_epi16(in_order, blue_none);
    const auto store = [i](std::int16_t* to, __m256i values) __attribute__((always_inline)) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), values);
    };
    store(red, _mm512_castsi512_si256(red_green));
    store(green, _mm512_extracti64x4_epi64(red_green, 1));
    store(blue, _mm512_castsi512_si256(blue_none));
  }
#elif defined(THREEDFA_SIMD_AVX2)
  const __m128i lane_order = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
  const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const auto sum_up = [](__m256i pixels, __m128i channels,
                         __m256i pairs) __attribute__((always_inline)) {
    const __m256i chosen = _mm256_shuffle_epi8(pixels, _mm256_broadcastsi128_si256(channels));
    return _mm256_srai_epi32(_mm256_madd_epi16(chosen, pairs), 4);
  };
  for (; i + 8 <= count; i += 8) {
    __m256i red_green = _mm256_setzero_si256(), blue_none = red_green;
    for (std::size_t half = 0; half < 2; ++half) {
      const __m128i place =
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(places + i + 4 * half));
      const __m128i bytes = _mm_add_epi32(place, _mm_slli_epi32(place, 1));
      const __m256i pixels =
          _mm256_i32gather_epi64(reinterpret_cast<const long long*>(row), bytes, 1);
      const __m256i weight = _mm256_cvtepu32_epi64(
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(weights + i + 4 * half)));
      const __m256i pairs = _mm256_or_si256(weight, _mm256_slli_epi64(weight, 32));
      const int shift = static_cast<int>(16 * half);
      red_green =
          _mm256_or_si256(red_green, _mm256_slli_epi32(sum_up(pixels, reds_greens, pairs), shift));
      blue_none =
          _mm256_or_si256(blue_none, _mm256_slli_epi32(sum_up(pixels, blues, pairs), shift));
    }
    const auto ordered = [=](__m256i values) __attribute__((always_inline)) {
      return _mm256_permutevar8x32_epi32(
          _mm256_shuffle_epi8(values, _mm256_broadcastsi128_si256(lane_order)), in_order);
    };
    const auto store = [i](std::int16_t* to, __m128i values) __attribute__((always_inline)) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), values);
    };
    red_green = ordered(red_green);
    store(red, _mm256_castsi256_si128(red_green));
    store(green, _mm256_extracti128_si256(red_green, 1));
    store(blue, _mm256_castsi256_si128(ordered(blue_none)));
  }
#elif defined(THREEDFA_SIMD_NEON)
  // Eight pairs of pixels, r g b r g b * * each, of which one instruction takes any eight bytes.
  const std::uint8_t first_reds[] = {0, 8, 16, 24, 32, 40, 48, 56};
  const uint8x8_t first_red = vld1_u8(first_reds);
  for (; i + 8 <= count; i += 8) {
    const auto two_pairs = [=](std::size_t k) __attribute__((always_inline)) {
      return vcombine_u8(vld1_u8(row + 3 * static_cast<std::ptrdiff_t>(places[i + k])),
                         vld1_u8(row + 3 * static_cast<std::ptrdiff_t>(places[i + k + 1])));
    };
    const uint8x16x4_t pixels = {{two_pairs(0), two_pairs(2), two_pairs(4), two_pairs(6)}};
    const auto chosen = [=](std::uint8_t byte) __attribute__((always_inline)) {
      return vmovl_u8(vqtbl4_u8(pixels, vadd_u8(first_red, vdup_n_u8(byte))));
    };
    const uint16x8_t some = vreinterpretq_u16_u32(vld1q_u32(weights + i)),
                     others = vreinterpretq_u16_u32(vld1q_u32(weights + i + 4));
    const uint16x8_t first_weight = vuzp1q_u16(some, others),
                     second_weight = vuzp2q_u16(some, others);
    for (std::uint8_t c = 0; c < 3; ++c) {
      const uint16x8_t one = chosen(c), two = chosen(static_cast<std::uint8_t>(c + 3));
      const uint32x4_t low = vmlal_u16(vmull_u16(vget_low_u16(one), vget_low_u16(first_weight)),
                                       vget_low_u16(two), vget_low_u16(second_weight));
      const uint32x4_t high = vmlal_high_u16(vmull_high_u16(one, first_weight), two, second_weight);
      vst1q_s16(sums + c * count + i,
                vreinterpretq_s16_u16(vcombine_u16(vshrn_n_u32(low, 4), vshrn_n_u32(high, 4))));
    }
  }
#endif
  for (; i < count; ++i) {
    const std::uint8_t* const first = row + 3 * static_cast<std::ptrdiff_t>(places[i]);
    const auto first_weight = static_cast<std::int32_t>(weights[i] & 0xffff),
               second_weight = static_cast<std::int32_t>(weights[i] >> 16);
    for (std::size_t c = 0; c < 3; ++c) {
      const std::int32_t second = second_weight == 0 ? 0 : second_weight * first[c + 3];
      sums[c * count + i] = static_cast<std::int16_t>((first_weight * first[c] + second) >> 4);
    }
  }
}

/// One pixel between two rows. The shifts are OpenCV's; the result is at most 255, also where
/// rounding makes a pair of weights add up to 2049.
template <bool kHalved>
inline std::int32_t blended(std::int32_t top, std::int32_t bottom, std::int32_t top_weight,
                            std::int32_t bottom_weight) {
  if (kHalved) return (top_weight * top + bottom_weight * bottom + (1 << 17)) >> 18;
  return (((top_weight * top) >> 16) + ((bottom_weight * bottom) >> 16) + 2) >> 2;
}

template <bool kHalved>
inline void blend_rows_as(const RowPair& pair, std::size_t count, std::uint8_t* __restrict out) {
  const std::int16_t* __restrict const top = pair.top, * __restrict const bottom = pair.bottom;
  const std::int32_t top_weight = pair.top_weight, bottom_weight = pair.bottom_weight;
  for (std::size_t i = 0; i < count; ++i) {
    out[i] =
        static_cast<std::uint8_t>(blended<kHalved>(top[i], bottom[i], top_weight, bottom_weight));
  }
}

void blend_rows(const RowPair& pair, std::size_t count, std::uint8_t* out) {
  (pair.halved ? blend_rows_as<true> : blend_rows_as<false>)(pair, count, out);
}

template <bool kHalved>
inline void blend_normalized_as(const RowPair& pair, std::size_t count, float mean, float scale,
                                float* __restrict out) {
  const std::int16_t* __restrict const top = pair.top, * __restrict const bottom = pair.bottom;
  const std::int32_t top_weight = pair.top_weight, bottom_weight = pair.bottom_weight;
  for (std::size_t i = 0; i < count; ++i) {
    const std::int32_t pixel = blended<kHalved>(top[i], bottom[i], top_weight, bottom_weight);
    out[i] = (static_cast<float>(pixel) - mean) * scale;
  }
}

void blend_normalized(const RowPair& pair, std::size_t count, float mean, float scale, float* out) {
  (pair.halved ? blend_normalized_as<true> : blend_normalized_as<false>)(pair, count, mean, scale,
                                                                         out);
}

void normalize_pixels(const std::uint8_t* pixels, std::size_t count, const float* mean,
                      const float* scale, float* const* planes) {
  std::size_t i = 0;
  const auto one_pixel = [&] {
    for (std::size_t c = 0; c < 3; ++c) {
      planes[c][i] = (static_cast<float>(pixels[3 * i + c]) - mean[c]) * scale[c];
    }
    ++i;
  };
#ifdef THREEDFA_SIMD_AVX2
  // Stores that cross no line of the cache are faster.
  while (i < count && reinterpret_cast<std::uintptr_t>(planes[0] + i) % 64 != 0) one_pixel();
  // Four pixels to each lane of 16 bytes, of which one channel becomes 32-bit integers.
  constexpr char kNo = -1;
  __m128i channels[3];
  for (std::size_t c = 0; c < 3; ++c) {
    const auto at = [c](std::size_t pixel) { return static_cast<char>(3 * pixel + c); };
    channels[c] = _mm_setr_epi8(at(0), kNo, kNo, kNo, at(1), kNo, kNo, kNo, at(2), kNo, kNo, kNo,
                                at(3), kNo, kNo, kNo);
  }
#endif
#ifdef THREEDFA_SIMD_AVX512
  const __m512i spread = _mm512_setr_epi32(0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 8, 9, 10, 11, 11);
  for (; 3 * i + 64 <= 3 * count; i += 16) {
    const __m512i some = _mm512_permutexvar_epi32(spread, _mm512_loadu_si512(pixels + 3 * i));
    for (std::size_t c = 0; c < 3; ++c) {
      const __m512 values =
          _mm512_cvtepi32_ps(_mm512_shuffle_epi8(some, _mm512_broadcast_i32x4(channels[c])));
      _mm512_storeu_ps(planes[c] + i, _mm512_mul_ps(_mm512_sub_ps(values, _mm512_set1_ps(mean[c])),
                                                    _mm512_set1_ps(scale[c])));
    }
  }
#elif defined(THREEDFA_SIMD_AVX2)
  const __m256i spread = _mm256_setr_epi32(0, 1, 2, 2, 3, 4, 5, 5);
  for (; 3 * i + 32 <= 3 * count; i += 8) {
    const __m256i some = _mm256_permutevar8x32_epi32(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pixels + 3 * i)), spread);
    for (std::size_t c = 0; c < 3; ++c) {
      const __m256 values =
          _mm256_cvtepi32_ps(_mm256_shuffle_epi8(some, _mm256_broadcastsi128_si256(channels[c])));
      _mm256_storeu_ps(planes[c] + i, _mm256_mul_ps(_mm256_sub_ps(values, _mm256_set1_ps(mean[c])),
                                                    _mm256_set1_ps(scale[c])));
    }
  }
#elif defined(THREEDFA_SIMD_NEON)
  for (; i + 8 <= count; i += 8) {
    const uint8x8x3_t some = vld3_u8(pixels + 3 * i);
    for (std::size_t c = 0; c < 3; ++c) {
      const uint16x8_t wide = vmovl_u8(some.val[c]);
      const uint32x4_t halves[] = {vmovl_u16(vget_low_u16(wide)), vmovl_high_u16(wide)};
      for (std::size_t half = 0; half < 2; ++half) {
        const float32x4_t values = vcvtq_f32_u32(halves[half]);
        vst1q_f32(planes[c] + i + 4 * half,
                  vmulq_n_f32(vsubq_f32(values, vdupq_n_f32(mean[c])), scale[c]));
      }
    }
  }
#endif
  while (i < count) one_pixel();
}

// Grey values of a few pixels: the sums of kGreyWeights times the channels.
#ifdef THREEDFA_SIMD_AVX2
// Four pixels to each lane of 16 bytes, the channels and a zero of each to 32 bits: one instruction
// adds products of bytes in pairs, the next one the pairs.
inline __m128i channels_apart() {
  constexpr char kNo = -1;
  return _mm_setr_epi8(0, 1, 2, kNo, 3, 4, 5, kNo, 6, 7, 8, kNo, 9, 10, 11, kNo);
}
constexpr int kGreyWeightBytes =
    Loops::kGreyWeights[0] | Loops::kGreyWeights[1] << 8 | Loops::kGreyWeights[2] << 16;
#endif
#ifdef THREEDFA_SIMD_AVX512
/// Of 16 pixels; reads 64 bytes.
inline __m512i grey_of(const std::uint8_t* pixels) {
  const __m512i spread = _mm512_setr_epi32(0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 8, 9, 10, 11, 11);
  const __m512i some = _mm512_permutexvar_epi32(spread, _mm512_loadu_si512(pixels));
  const __m512i pairs =
      _mm512_maddubs_epi16(_mm512_shuffle_epi8(some, _mm512_broadcast_i32x4(channels_apart())),
                           _mm512_set1_epi32(kGreyWeightBytes));
  return _mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
}
#elif defined(THREEDFA_SIMD_AVX2)
/// Of 8 pixels; reads 32 bytes.
inline __m256i grey_of(const std::uint8_t* pixels) {
  const __m256i spread = _mm256_setr_epi32(0, 1, 2, 2, 3, 4, 5, 5);
  const __m256i some = _mm256_permutevar8x32_epi32(
      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pixels)), spread);
  const __m256i pairs =
      _mm256_maddubs_epi16(_mm256_shuffle_epi8(some, _mm256_broadcastsi128_si256(channels_apart())),
                           _mm256_set1_epi32(kGreyWeightBytes));
  return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#elif defined(THREEDFA_SIMD_NEON)
/// Of 8 pixels; reads 24 bytes.
inline uint16x8_t grey_of(const std::uint8_t* pixels) {
  const uint8x8x3_t some = vld3_u8(pixels);
  uint16x8_t eight = vmull_u8(some.val[0], vdup_n_u8(Loops::kGreyWeights[0]));
  eight = vmlal_u8(eight, some.val[1], vdup_n_u8(Loops::kGreyWeights[1]));
  return vmlal_u8(eight, some.val[2], vdup_n_u8(Loops::kGreyWeights[2]));
}
#endif

inline std::int32_t grey_of_one(const std::uint8_t* pixel) {
  constexpr const std::uint8_t* kWeights = Loops::kGreyWeights;
  return kWeights[0] * pixel[0] + kWeights[1] * pixel[1] + kWeights[2] * pixel[2];
}

void grey_row(const std::uint8_t* pixels, std::size_t count, std::int16_t* sums) {
  std::size_t i = 0;
#ifdef THREEDFA_SIMD_AVX512
  for (; 3 * i + 64 <= 3 * count; i += 16) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + i),
                        _mm512_cvtepi32_epi16(grey_of(pixels + 3 * i)));
  }
#elif defined(THREEDFA_SIMD_AVX2)
  for (; 3 * i + 32 <= 3 * count; i += 8) {
    const __m256i wide = grey_of(pixels + 3 * i);
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(sums + i),
        _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1)));
  }
#elif defined(THREEDFA_SIMD_NEON)
  for (; i + 8 <= count; i += 8) {
    vst1q_s16(sums + i, vreinterpretq_s16_u16(grey_of(pixels + 3 * i)));
  }
#endif
  for (; i < count; ++i) sums[i] = static_cast<std::int16_t>(grey_of_one(pixels + 3 * i));
}

void normalize_grey(const std::uint8_t* pixels, std::size_t count, float mean, float scale,
                    float* out) {
  std::size_t i = 0;
  const auto one_pixel = [&] {
    out[i] = (static_cast<float>(grey_of_one(pixels + 3 * i)) - mean) * scale;
    ++i;
  };
#ifdef THREEDFA_SIMD_AVX2
  // Stores that cross no line of the cache are faster.
  while (i < count && reinterpret_cast<std::uintptr_t>(out + i) % 64 != 0) one_pixel();
#endif
#ifdef THREEDFA_SIMD_AVX512
  for (; 3 * i + 64 <= 3 * count; i += 16) {
    const __m512 sums = _mm512_cvtepi32_ps(grey_of(pixels + 3 * i));
    _mm512_storeu_ps(
        out + i, _mm512_mul_ps(_mm512_sub_ps(sums, _mm512_set1_ps(mean)), _mm512_set1_ps(scale)));
  }
#elif defined(THREEDFA_SIMD_AVX2)
  for (; 3 * i + 32 <= 3 * count; i += 8) {
    const __m256 sums = _mm256_cvtepi32_ps(grey_of(pixels + 3 * i));
    _mm256_storeu_ps(
        out + i, _mm256_mul_ps(_mm256_sub_ps(sums, _mm256_set1_ps(mean)), _mm256_set1_ps(scale)));
  }
#elif defined(THREEDFA_SIMD_NEON)
  for (; i + 8 <= count; i += 8) {
    const uint16x8_t sums = grey_of(pixels + 3 * i);
    const uint32x4_t halves[] = {vmovl_u16(vget_low_u16(sums)), vmovl_high_u16(sums)};
    for (std::size_t half = 0; half < 2; ++half) {
      vst1q_f32(out + i + 4 * half,
                vmulq_n_f32(vsubq_f32(vcvtq_f32_u32(halves[half]), vdupq_n_f32(mean)), scale));
    }
  }
#endif
  while (i < count) one_pixel();
}

void resample_grey(const std::int16_t* row, const std::int32_t* places,
                   const std::uint32_t* weights, std::size_t count, std::int16_t* sums) {
  std::size_t i = 0;
  constexpr int kHalf = 1024, kShift = 11;  // of the weights' sum, 2048
#ifdef THREEDFA_SIMD_AVX512
  // Each place's sum and the next one are a pair, which one instruction multiplies and adds. Pairs
  // that are near one another come out of two registers, which is faster than out of memory.
  for (; i + 16 <= count; i += 16) {
    const __m512i sixteen = _mm512_loadu_si512(places + i);
    const std::int32_t first = places[i];
    __m512i pairs;
    if (static_cast<std::size_t>(places[i + 15] - first) + 2 <= Loops::kGreyBehind) {
      const std::int16_t* const from = row + first;
      const __m512i place = _mm512_sub_epi32(sixteen, _mm512_set1_epi32(first));
      const __m512i next = _mm512_slli_epi32(_mm512_add_epi32(place, _mm512_set1_epi32(1)), 16);
      pairs = _mm512_permutex2var_epi16(_mm512_loadu_si512(from), _mm512_or_si512(place, next),
                                        _mm512_loadu_si512(from + 32));
    } else {
      pairs = _mm512_i32gather_epi32(sixteen, row, 2);
    }
    const __m512i both = _mm512_madd_epi16(pairs, _mm512_loadu_si512(weights + i));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + i),
                        _mm512_cvtepi32_epi16(_mm512_srai_epi32(
                            _mm512_add_epi32(both, _mm512_set1_epi32(kHalf)), kShift)));
  }
#elif defined(THREEDFA_SIMD_AVX2)
  for (; i + 8 <= count; i += 8) {
    const auto load = [](const void* from) __attribute__((always_inline)) {
      return _mm256_loadu_si256(static_cast<const __m256i*>(from));
    };
    const __m256i pairs =
        _mm256_i32gather_epi32(reinterpret_cast<const int*>(row), load(places + i), 2);
    const __m256i both = _mm256_madd_epi16(pairs, load(weights + i));
    const __m256i rounded =
        _mm256_srai_epi32(_mm256_add_epi32(both, _mm256_set1_epi32(kHalf)), kShift);
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(sums + i),
        _mm_packs_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1)));
  }
#endif
  for (; i < count; ++i) {
    const std::int16_t* const first = row + places[i];
    const auto first_weight = static_cast<std::int32_t>(weights[i] & 0xffff),
               second_weight = static_cast<std::int32_t>(weights[i] >> 16);
    sums[i] = static_cast<std::int16_t>(
        (first_weight * first[0] + second_weight * first[1] + kHalf) >> kShift);
  }
}

void blend_grey(const RowPair& pair, std::size_t count, float mean, float scale, float* out) {
  const std::int16_t *const top = pair.top, *const bottom = pair.bottom;
  std::size_t i = 0;
#ifdef THREEDFA_SIMD_AVX2
  // Both rows' sums of a pixel are a pair, too.
  const int weights = pair.top_weight | pair.bottom_weight << 16;
#endif
#ifdef THREEDFA_SIMD_AVX512
  for (; i + 16 <= count; i += 16) {
    const auto wide = [i](const std::int16_t* from) __attribute__((always_inline)) {
      return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i)));
    };
    const __m512i pairs = _mm512_or_si512(wide(top), _mm512_slli_epi32(wide(bottom), 16));
    const __m512 sums = _mm512_cvtepi32_ps(_mm512_madd_epi16(pairs, _mm512_set1_epi32(weights)));
    _mm512_storeu_ps(
        out + i, _mm512_mul_ps(_mm512_sub_ps(sums, _mm512_set1_ps(mean)), _mm512_set1_ps(scale)));
  }
#elif defined(THREEDFA_SIMD_AVX2)
  for (; i + 8 <= count; i += 8) {
    const auto wide = [i](const std::int16_t* from) __attribute__((always_inline)) {
      return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
    };
    const __m256i pairs = _mm256_or_si256(wide(top), _mm256_slli_epi32(wide(bottom), 16));
    const __m256 sums = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi32(weights)));
    _mm256_storeu_ps(
        out + i, _mm256_mul_ps(_mm256_sub_ps(sums, _mm256_set1_ps(mean)), _mm256_set1_ps(scale)));
  }
#endif
  for (; i < count; ++i) {
    const std::int32_t sum = pair.top_weight * top[i] + pair.bottom_weight * bottom[i];
    out[i] = (static_cast<float>(sum) - mean) * scale;
  }
}
