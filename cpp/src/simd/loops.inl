// Included by one file for each instruction set, which sets THREEDFA_SIMD_NAME, compile flags and
// what may be used: THREEDFA_SIMD_AVX2, THREEDFA_SIMD_AVX512 or THREEDFA_SIMD_NEON. The compiler's
// own macros would not do: with -march=native they are set for the plain build, too, which is the
// one that reads nothing beyond its input.
// Nothing here may be a template or an inline function from elsewhere: the linker keeps one copy of
// those, which could be the one for instructions that the machine does not have.

#include <math.h>  // the C functions, which are not inline
#include <string.h>

#include <type_traits>

#include "loops.hpp"
#include "triangle.hpp"

#if defined(THREEDFA_SIMD_AVX2)
#include <immintrin.h>
#elif defined(THREEDFA_SIMD_NEON)
#include <arm_neon.h>
#endif

// Tells the compiler that what a loop writes is not what it reads.
#if defined(THREEDFA_SIMD_PLAIN)
#define THREEDFA_SIMD_INDEPENDENT
#elif defined(__clang__)
#define THREEDFA_SIMD_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define THREEDFA_SIMD_INDEPENDENT _Pragma("GCC ivdep")
#else
#define THREEDFA_SIMD_INDEPENDENT
#endif

// For a function so long that Clang would call it, once for each round of a loop.
#ifdef _MSC_VER
#define THREEDFA_SIMD_INLINE inline
#else
#define THREEDFA_SIMD_INLINE [[gnu::always_inline]] inline
#endif

namespace threedfa::simd {
namespace {

/// Adds kRows rows to the sums of kFaces faces, so that each row is read once for all of them.
template <std::size_t kRows, std::size_t kFaces, class Value>
inline void add_some_rows(const Value* const* rows, const float* scales, std::size_t size,
                          std::size_t mode, const float* const* coefficients, float* const* sums) {
  const Value* row[kRows];
  float scale[kRows], c[kFaces][kRows], *sum[kFaces];
  for (std::size_t k = 0; k < kRows; ++k) {
    row[k] = rows[mode + k];
    scale[k] = scales == nullptr ? 1.0f : scales[mode + k];
  }
  for (std::size_t f = 0; f < kFaces; ++f) {
    sum[f] = sums[f];
    for (std::size_t k = 0; k < kRows; ++k) c[f][k] = coefficients[f][mode + k];
  }
  THREEDFA_SIMD_INDEPENDENT
  for (std::size_t i = 0; i < size; ++i) {
    float value[kRows];
    for (std::size_t k = 0; k < kRows; ++k) {
      value[k] = static_cast<float>(row[k][i]);
      if (std::is_integral<Value>::value) value[k] *= scale[k];
    }
    for (std::size_t f = 0; f < kFaces; ++f) {
      float total = sum[f][i];
      for (std::size_t k = 0; k < kRows; ++k) total += c[f][k] * value[k];
      sum[f][i] = total;
    }
  }
}

/// Adds all rows to the sums of kFaces faces. Ten at a time: with more, GCC gives up unrolling and
/// then vectorising; with fewer, the sums are written and read more often.
template <std::size_t kFaces, class Value>
inline void add_rows_to(const Value* const* rows, const float* scales, std::size_t modes,
                        std::size_t size, const float* const* coefficients, float* const* sums) {
  constexpr std::size_t kRows = 10;
  std::size_t k = 0;
  for (; k + kRows <= modes; k += kRows) {
    add_some_rows<kRows, kFaces>(rows, scales, size, k, coefficients, sums);
  }
  for (; k < modes; ++k) add_some_rows<1, kFaces>(rows, scales, size, k, coefficients, sums);
}

template <class Value>
void add_rows_of(const Value* const* rows, const float* scales, std::size_t modes, std::size_t size,
                 std::size_t faces, const float* const* coefficients, float* const* sums) {
  std::size_t f = 0;
  for (; f + 8 <= faces; f += 8) {
    add_rows_to<8>(rows, scales, modes, size, coefficients + f, sums + f);
  }
  for (; f + 4 <= faces; f += 4) {
    add_rows_to<4>(rows, scales, modes, size, coefficients + f, sums + f);
  }
  for (; f + 2 <= faces; f += 2) {
    add_rows_to<2>(rows, scales, modes, size, coefficients + f, sums + f);
  }
  if (f < faces) add_rows_to<1>(rows, scales, modes, size, coefficients + f, sums + f);
}

void add_rows(const BasisRows& rows, std::size_t modes, std::size_t size, std::size_t faces,
              const float* const* coefficients, float* const* sums) {
  if (rows.scales == nullptr) {
    add_rows_of(rows.floats, nullptr, modes, size, faces, coefficients, sums);
  } else {
    add_rows_of(rows.steps, rows.scales, modes, size, faces, coefficients, sums);
  }
}

/// How many of `count` boxes overlap; without a branch, for whole vectors. Without the quotient it
/// may be more, if `threshold` is a little too low.
template <bool kQuotient>
inline int overlapping(const float* __restrict x1, const float* __restrict y1,
                       const float* __restrict x2, const float* __restrict y2,
                       const float* __restrict area, std::size_t count, const float* box,
                       float threshold, float offset) {
  const float bx1 = box[0], by1 = box[1], bx2 = box[2], by2 = box[3], box_area = box[4];
  int found = 0;
  for (std::size_t k = 0; k < count; ++k) {
    const float left = x1[k] > bx1 ? x1[k] : bx1;
    const float top = y1[k] > by1 ? y1[k] : by1;
    const float right = x2[k] < bx2 ? x2[k] : bx2;
    const float bottom = y2[k] < by2 ? y2[k] : by2;
    float width = right - left + offset;
    float height = bottom - top + offset;
    width = width > 0.0f ? width : 0.0f;
    height = height > 0.0f ? height : 0.0f;
    const float intersection = width * height;
    const float united = area[k] + box_area - intersection;
    if (kQuotient) {
      found +=
          static_cast<int>(united > 0.0f) & static_cast<int>(intersection / united >= threshold);
    } else {
      constexpr float kTiny = 1e-30f;  // products of less may vanish
      found +=
          static_cast<int>(united < kTiny) | static_cast<int>(intersection >= threshold * united);
    }
  }
  return found;
}

bool overlaps_any(const float* const* fields, std::size_t count, const float* box, float threshold,
                  float offset) {
  constexpr std::size_t kBlock = 64;  // boxes between two looks at the result
  // Divisions take most of the time, and few boxes come near the threshold.
  const float low = threshold * 0.999999f;
  for (std::size_t k = 0; k < count; k += kBlock) {
    const std::size_t size = count - k < kBlock ? count - k : kBlock;
    const float *const x1 = fields[0] + k, *const y1 = fields[1] + k, *const x2 = fields[2] + k,
                       *const y2 = fields[3] + k, *const area = fields[4] + k;
    if (low > 0.0f && overlapping<false>(x1, y1, x2, y2, area, size, box, low, offset) == 0) {
      continue;
    }
    if (overlapping<true>(x1, y1, x2, y2, area, size, box, threshold, offset) != 0) return true;
  }
  return false;
}

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

#ifdef THREEDFA_SIMD_AVX2
constexpr int kYzx = 0b11'00'10'01;  // the order in which a permutation takes coordinates
#endif

// In doubles: no finite float makes a product overflow or vanish.
void scatter_areas(const float* vertices, const std::int32_t* triangles, std::size_t count,
                   double* sums) {
  for (std::size_t t = 0; t < 3 * count; t += 3) {
    std::size_t corner[3];
    for (std::size_t k = 0; k < 3; ++k) corner[k] = static_cast<std::size_t>(triangles[t + k]);
#ifdef THREEDFA_SIMD_AVX2
    __m256d point[3];
    for (std::size_t k = 0; k < 3; ++k) {
      point[k] = _mm256_cvtps_pd(_mm_loadu_ps(vertices + 3 * corner[k]));
    }
    const __m256d u = _mm256_sub_pd(point[1], point[0]), v = _mm256_sub_pd(point[2], point[0]);
    const __m256d area = _mm256_sub_pd(_mm256_mul_pd(u, _mm256_permute4x64_pd(v, kYzx)),
                                       _mm256_mul_pd(_mm256_permute4x64_pd(u, kYzx), v));
    for (const std::size_t k : corner) {
      _mm256_storeu_pd(sums + 4 * k, _mm256_add_pd(_mm256_loadu_pd(sums + 4 * k), area));
    }
#else
    const float *const a = vertices + 3 * corner[0], *const b = vertices + 3 * corner[1],
                       *const c = vertices + 3 * corner[2];
    double u[3], v[3];
    for (std::size_t axis = 0; axis < 3; ++axis) {
      u[axis] = double(b[axis]) - double(a[axis]);
      v[axis] = double(c[axis]) - double(a[axis]);
    }
    const double x = u[1] * v[2] - u[2] * v[1], y = u[2] * v[0] - u[0] * v[2],
                 z = u[0] * v[1] - u[1] * v[0];
    for (const std::size_t k : corner) {
      sums[4 * k] += z;
      sums[4 * k + 1] += x;
      sums[4 * k + 2] += y;
    }
#endif
  }
}

// Quads that all have the walk's first point: the cross product of the diagonals of each.
void walk_areas(const float* vertices, const VertexRings::Block& block, float* areas) {
  const std::uint32_t* corner = block.corners;
  const VertexRings::Pair* const end = block.pairs.data() + block.pairs.size();
  for (const VertexRings::Pair* pair = block.pairs.data(); pair != end; ++pair) {
    const std::uint32_t* const next_pair = corner + 2 * std::size_t{pair->points};
#ifdef THREEDFA_SIMD_AVX2
    const auto points = [=](const std::uint32_t* two) __attribute__((always_inline)) {
      return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(vertices + two[0])),
                                  _mm_loadu_ps(vertices + two[1]), 1);
    };
    const __m256 first = points(corner);
    __m256 last = points(corner + 2), sum = _mm256_setzero_ps();
    for (corner += 4; corner != next_pair; corner += 4) {
      const __m256 next = points(corner + 2);
      const __m256 u = _mm256_sub_ps(first, points(corner)), v = _mm256_sub_ps(last, next);
      sum = _mm256_add_ps(sum, _mm256_sub_ps(_mm256_mul_ps(u, _mm256_permute_ps(v, kYzx)),
                                             _mm256_mul_ps(_mm256_permute_ps(u, kYzx), v)));
      last = next;
    }
    _mm_storeu_ps(areas + 4 * pair->slot[0], _mm256_castps256_ps128(sum));
    _mm_storeu_ps(areas + 4 * pair->slot[1], _mm256_extractf128_ps(sum, 1));
#else
    for (std::size_t walk = 0; walk < 2; ++walk) {
      const float* const first = vertices + corner[walk];
      const float* last = vertices + corner[2 + walk];
      float x = 0, y = 0, z = 0;
      for (const std::uint32_t* two = corner + 4 + walk; two < next_pair; two += 4) {
        const float *const a = vertices + two[0], *const next = vertices + two[2];
        const float u[] = {first[0] - a[0], first[1] - a[1], first[2] - a[2]};
        const float v[] = {last[0] - next[0], last[1] - next[1], last[2] - next[2]};
        x += u[1] * v[2] - u[2] * v[1];
        y += u[2] * v[0] - u[0] * v[2];
        z += u[0] * v[1] - u[1] * v[0];
        last = next;
      }
      float* const area = areas + 4 * pair->slot[walk];
      area[0] = z;
      area[1] = x;
      area[2] = y;
    }
    corner = next_pair;
#endif
  }
}

/// `Bits` are those of `Value`; `one` is the exponent in those of 1.
template <class Value, class Bits>
inline std::size_t unit_vectors_of(const Value* vectors, std::size_t count, Bits one, float* out) {
  constexpr std::size_t kBlock = 64;
  Value x[kBlock], y[kBlock], z[kBlock];
  Bits usual = 0;
  for (std::size_t begin = 0; begin < count; begin += kBlock) {
    const std::size_t size = count - begin < kBlock ? count - begin : kBlock;
    for (std::size_t i = 0; i < size; ++i) {
      const Value* const zxy = vectors + 4 * (begin + i);
      z[i] = zxy[0];
      x[i] = zxy[1];
      y[i] = zxy[2];
    }
    float* __restrict const unit = out + 3 * begin;
    for (std::size_t i = 0; i < size; ++i) {
      const Value ax = x[i] < 0 ? -x[i] : x[i], ay = y[i] < 0 ? -y[i] : y[i],
                  az = z[i] < 0 ? -z[i] : z[i];
      Value most = ax > ay ? ax : ay;
      most = most > az ? most : az;
      // Each of the three against the upper end: NaN, which `most` may have lost, is not below it.
      constexpr auto kMost = static_cast<Value>(Loops::kMost);
      usual += static_cast<Bits>(most > Value(Loops::kLeast)) & static_cast<Bits>(ax < kMost) &
               static_cast<Bits>(ay < kMost) & static_cast<Bits>(az < kMost);
      // Made about 1 by a power of two, after which float is enough.
      Bits bits;
      memcpy(&bits, &most, sizeof(bits));
      bits = 2 * one - (bits & (2 * one | one));
      Value scale;
      memcpy(&scale, &bits, sizeof(scale));
      const auto fx = static_cast<float>(x[i] * scale), fy = static_cast<float>(y[i] * scale),
                 fz = static_cast<float>(z[i] * scale);
      const float length = sqrtf(fx * fx + fy * fy + fz * fz);
      const float inverse = length > 0.0f ? 1.0f / length : 0.0f;
      unit[3 * i] = fx * inverse;
      unit[3 * i + 1] = fy * inverse;
      unit[3 * i + 2] = fz * inverse;
    }
  }
  return count - static_cast<std::size_t>(usual);
}

std::size_t unit_vectors(const double* vectors, std::size_t count, float* out) {
  return unit_vectors_of<double, std::uint64_t>(vectors, count, 0x3ff0000000000000, out);
}

std::size_t unit_float_vectors(const float* vectors, std::size_t count, float* out) {
  return unit_vectors_of<float, std::uint32_t>(vectors, count, 0x3f800000, out);
}

/// 0..1, NaN as it is.
inline float clamped(float value) {
  const float not_negative = value < 0.0f ? 0.0f : value;
  return not_negative > 1.0f ? 1.0f : not_negative;
}

void shade(const float* vertices, const float* normals, std::size_t count,
           const ShadingTerms& given, float* out) {
  constexpr std::size_t kBlock = 64;
  const ShadingTerms terms = given;
  float cosine[kBlock], base[3 * kBlock], power[3 * kBlock];
  for (std::size_t begin = 0; begin < count; begin += kBlock) {
    const std::size_t size = count - begin < kBlock ? count - begin : kBlock;
    const float* __restrict const v = vertices + 3 * begin;
    const float* __restrict const n = normals + 3 * begin;
    for (std::size_t i = 0; i < size; ++i) {
      float to_light[3], to_view[3], light_square = 0.0f, view_square = 0.0f;
      for (std::size_t axis = 0; axis < 3; ++axis) {
        const float point =
            (v[3 * i + axis] - terms.least[axis]) / terms.extent * 2.0f - terms.half[axis];
        to_light[axis] = terms.light[axis] - point;
        to_view[axis] = terms.view[axis] - point;
        light_square += to_light[axis] * to_light[axis];
        view_square += to_view[axis] * to_view[axis];
      }
      const float light_length = sqrtf(light_square), view_length = sqrtf(view_square);
      float dot = 0.0f;
      for (std::size_t axis = 0; axis < 3; ++axis) {
        to_light[axis] = light_length > 0.0f ? to_light[axis] / light_length : 0.0f;
        to_view[axis] = view_length > 0.0f ? to_view[axis] / view_length : 0.0f;
        dot += n[3 * i + axis] * to_light[axis];
      }
      for (std::size_t axis = 0; axis < 3; ++axis) {
        const float reflection = 2.0f * dot * n[3 * i + axis] - to_light[axis];
        base[axis * kBlock + i] = to_view[axis] * reflection;
      }
      cosine[i] = dot;
    }
    for (std::size_t i = 0; i < 3 * kBlock; ++i) power[i] = 1.0f;
    for (int exponent = terms.shininess; exponent > 0; exponent /= 2) {
      for (std::size_t axis = 0; axis < 3; ++axis) {
        for (std::size_t i = axis * kBlock; i < axis * kBlock + size; ++i) {
          power[i] *= exponent % 2 == 1 ? base[i] : 1.0f;
          base[i] *= base[i];
        }
      }
    }
    for (std::size_t i = 0; i < size; ++i) {
      // The cosine is not clamped in it, so a surface turned away from the light can shine too.
      const float shine = power[i] + power[kBlock + i] + power[2 * kBlock + i];
      const float specular = cosine[i] != 0.0f ? shine : 0.0f;
      out[begin + i] = clamped(terms.ambient + terms.diffuse * clamped(cosine[i]) +
                               terms.specular * clamped(specular));
    }
  }
}

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

void to_bytes(const float* __restrict values, std::size_t count, std::uint8_t* __restrict out) {
  for (std::size_t i = 0; i < count; ++i) {
    const float positive = values[i] > 0.0f ? values[i] * 255.0f : 0.0f;
    out[i] =
        static_cast<std::uint8_t>(static_cast<std::int32_t>(positive < 255.0f ? positive : 255.0f));
  }
}

/// What single precision says of a triangle of a batch at a pixel.
struct QuickFragment {
  float weights[3], depth;
  bool inside, unsure;
};

/// `x`, `y`: from corner 0 to the pixel's centre.
THREEDFA_SIMD_INLINE QuickFragment quick_fragment(const TriangleBatch& batch, std::size_t slot,
                                                  float x, float y) {
  const float w1 = batch.along[0][slot] * x + batch.down[0][slot] * y;
  const float w2 = batch.along[1][slot] * x + batch.down[1][slot] * y;
  const float w0 = 1.0f - w1 - w2, tolerance = batch.tolerance[slot];
  float least = w0 < w1 ? w0 : w1;
  least = least < w2 ? least : w2;
  const bool inside = least > tolerance;
  return {{w0, w1, w2},
          batch.z[slot] + (w1 * batch.rise[0][slot] + w2 * batch.rise[1][slot]),
          inside,
          !(inside | (least < -tolerance))};
}

/// Looks at the first four pixels of the box of triangle `slot`.
THREEDFA_SIMD_INLINE void cover_quad(TriangleBatch& batch, std::size_t slot) {
  const std::int32_t columns = batch.right[slot] - batch.left[slot];
  const std::int32_t rows = batch.bottom[slot] - batch.top[slot];
  std::int32_t covered = 0, unsure = 0;
  for (std::size_t pixel = 0; pixel < 4; ++pixel) {
    const std::int32_t column = batch.left[slot] + static_cast<std::int32_t>(pixel % 2);
    const std::int32_t row = batch.top[slot] + static_cast<std::int32_t>(pixel / 2);
    const QuickFragment fragment =
        quick_fragment(batch, slot, static_cast<float>(column) - batch.corner_x[slot],
                       static_cast<float>(row) - batch.corner_y[slot]);
    covered |= static_cast<std::int32_t>(fragment.inside) << pixel;
    unsure |= static_cast<std::int32_t>(fragment.unsure) << pixel;
    const std::size_t place = TriangleBatch::kMost * pixel + slot;
    for (std::size_t k = 0; k < 3; ++k) batch.weights[k][place] = fragment.weights[k];
    batch.depth[place] = fragment.depth;
  }
  const bool empty = (columns < 0) | (rows < 0);
  const bool larger = (columns > 1) | (rows > 1) | (batch.small[slot] == 0);
  std::int32_t wanted = (columns > 0 ? 0b1111 : 0b0101) & (rows > 0 ? 0b1111 : 0b0011);
  wanted = (empty | larger) ? 0 : wanted;
  batch.covered[slot] = (covered & wanted) | (unsure & wanted) << 4;
  batch.larger[slot] = !empty & larger;
}

void set_up_triangles(const MeshView& mesh, std::size_t first, std::size_t count,
                      const PixelWindow& window, TriangleBatch& out) {
  const float* __restrict const vertices = mesh.vertices;
  const std::int32_t* __restrict const triangles = mesh.triangles + 3 * first;
  constexpr auto kSmall = static_cast<float>(TriangleBatch::kSmall);
  constexpr float kError = 1.0f / (1 << 19);  // 32 roundings; fewer are made
  constexpr float kConstantError = 1.0f / (1 << 22);
  constexpr float kUnderflow = 7.9e-31f;  // far above what products lose there
  constexpr float kMostError = 1.0f / (1 << 13);
  const float infinity = static_cast<float>(INFINITY);
  constexpr std::size_t kMost = TriangleBatch::kMost;
  float x_of[3][kMost], y_of[3][kMost], z_of[3][kMost];
  for (std::size_t k = 0; k < 3; ++k) {
    std::size_t i = 0;
#ifdef THREEDFA_SIMD_AVX512
    // Corners as they lie in memory, four to a register, turned into x, y and z: one load for each
    // instead of three.
    const auto corner_of = [=](std::size_t t) __attribute__((always_inline)) {
      return _mm_maskz_loadu_ps(0b111, vertices + 3 * triangles[3 * t + k]);
    };
    const auto four = [=](std::size_t t) __attribute__((always_inline)) {
      __m512 corners = _mm512_castps128_ps512(corner_of(t));
      corners = _mm512_insertf32x4(corners, corner_of(t + 4), 1);
      corners = _mm512_insertf32x4(corners, corner_of(t + 8), 2);
      return _mm512_insertf32x4(corners, corner_of(t + 12), 3);
    };
    for (; i + 16 <= count; i += 16) {
      const __m512 a = four(i), b = four(i + 1), c = four(i + 2), d = four(i + 3);
      const __m512 low_ab = _mm512_unpacklo_ps(a, b), low_cd = _mm512_unpacklo_ps(c, d);
      const __m512 high_ab = _mm512_unpackhi_ps(a, b), high_cd = _mm512_unpackhi_ps(c, d);
      _mm512_storeu_ps(x_of[k] + i, _mm512_shuffle_ps(low_ab, low_cd, 0b01'00'01'00));
      _mm512_storeu_ps(y_of[k] + i, _mm512_shuffle_ps(low_ab, low_cd, 0b11'10'11'10));
      _mm512_storeu_ps(z_of[k] + i, _mm512_shuffle_ps(high_ab, high_cd, 0b01'00'01'00));
    }
#endif
    for (; i < count; ++i) {
      const std::int32_t corner = 3 * triangles[3 * i + k];
      x_of[k][i] = vertices[corner];
      y_of[k][i] = vertices[corner + 1];
      z_of[k][i] = vertices[corner + 2];
    }
  }
  TriangleBatch& __restrict batch = out;
  float width[kMost], height[kMost];
  const auto find_box = [count](const float (&at)[3][kMost], float begin, float end,
                                std::int32_t* __restrict lowest, std::int32_t* __restrict highest,
                                float* __restrict extent) {
    for (std::size_t i = 0; i < count; ++i) {
      const float a = at[0][i], b = at[1][i], c = at[2][i];
      float least = a < b ? a : b;
      least = least < c ? least : c;
      float most = a > b ? a : b;
      most = most > c ? most : c;
      extent[i] = most - least;
      // Clipped while they are floating point, so that they fit an int; of NaN nothing is left.
      least = least > begin ? least : begin;
      least = least < end + 1.0f ? least : end + 1.0f;
      most = most > begin - 1.0f ? most : begin - 1.0f;
      most = most < end ? most : end;
      const auto up = static_cast<std::int32_t>(least), down = static_cast<std::int32_t>(most);
      lowest[i] = up + static_cast<std::int32_t>(static_cast<float>(up) < least);
      highest[i] = down - static_cast<std::int32_t>(static_cast<float>(down) > most);
    }
  };
  find_box(x_of, static_cast<float>(window.left), static_cast<float>(window.right), batch.left,
           batch.right, width);
  find_box(y_of, static_cast<float>(window.top), static_cast<float>(window.bottom), batch.top,
           batch.bottom, height);
  for (std::size_t i = 0; i < count; ++i) {
    const float ux = x_of[1][i] - x_of[0][i], uy = y_of[1][i] - y_of[0][i];
    const float vx = x_of[2][i] - x_of[0][i], vy = y_of[2][i] - y_of[0][i];
    const float inverse = 1.0f / (ux * vy - vx * uy);
    // Zero, unless something is infinite or NaN; then nothing is sure, and nothing is drawn.
    const float zero = 0 * z_of[0][i] + 0 * z_of[1][i] + 0 * z_of[2][i];
    const float error =
        kError * (width[i] * height[i] + kUnderflow) * fabsf(inverse) + kConstantError + zero;
    batch.small[i] = (width[i] < kSmall) & (height[i] < kSmall);
    batch.corner_x[i] = x_of[0][i];
    batch.corner_y[i] = y_of[0][i];
    batch.along[0][i] = vy * inverse;
    batch.along[1][i] = -uy * inverse;
    batch.down[0][i] = -vx * inverse;
    batch.down[1][i] = ux * inverse;
    batch.tolerance[i] = error < kMostError ? error : infinity;
    batch.z[i] = z_of[0][i];
    batch.rise[0][i] = z_of[1][i] - z_of[0][i];
    batch.rise[1][i] = z_of[2][i] - z_of[0][i];
  }
  THREEDFA_SIMD_INDEPENDENT
  for (std::size_t i = 0; i < count; ++i) {
    cover_quad(out, i);
  }
}

/// Sixteen pixels that triangles may cover.
struct SixteenPixels {
  alignas(64) std::int32_t inside[16], unsure[16];  ///< not 0 if so
  alignas(64) std::int32_t pixel[16], slot[16];
  const float *weights[3], *depth;
};

#ifdef THREEDFA_SIMD_AVX512
/// Writes those of sixteen values whose bits are set, and something behind them.
THREEDFA_SIMD_INLINE void compress(__mmask16 set, const void* from, void* to) {
  _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(set, _mm512_loadu_si512(from)));
}
#endif

THREEDFA_SIMD_INLINE void add_to_list(const SixteenPixels& found, PixelList& list) {
  std::size_t count = list.count, unsure_count = list.unsure_count;
#ifdef THREEDFA_SIMD_AVX512
  const __m512i flags = _mm512_load_si512(found.inside), doubts = _mm512_load_si512(found.unsure);
  const __mmask16 inside = _mm512_test_epi32_mask(flags, flags);
  const __mmask16 unsure = _mm512_test_epi32_mask(doubts, doubts);
  compress(inside, found.pixel, list.pixel + count);
  compress(inside, found.slot, list.slot + count);
  for (std::size_t k = 0; k < 3; ++k) compress(inside, found.weights[k], list.weights[k] + count);
  compress(inside, found.depth, list.depth + count);
  count += static_cast<std::size_t>(__builtin_popcount(inside));
  if (unsure != 0) {
    compress(unsure, found.pixel, list.unsure_pixel + unsure_count);
    compress(unsure, found.slot, list.unsure_slot + unsure_count);
    unsure_count += static_cast<std::size_t>(__builtin_popcount(unsure));
  }
#else
  // Without a branch: whether a pixel is inside cannot be foretold.
  std::size_t lanes[17], set = 0;
  std::int32_t doubts = 0;
  for (std::size_t lane = 0; lane < 16; ++lane) {
    lanes[set] = lane;
    set += found.inside[lane] != 0;
    doubts |= found.unsure[lane];
  }
  for (std::size_t n = 0; n < set; ++n, ++count) {
    const std::size_t lane = lanes[n];
    list.pixel[count] = found.pixel[lane];
    list.slot[count] = found.slot[lane];
    for (std::size_t k = 0; k < 3; ++k) list.weights[k][count] = found.weights[k][lane];
    list.depth[count] = found.depth[lane];
  }
  for (std::size_t lane = 0; doubts != 0 && lane < 16; ++lane) {
    if (found.unsure[lane] == 0) continue;
    list.unsure_pixel[unsure_count] = found.pixel[lane];
    list.unsure_slot[unsure_count++] = found.slot[lane];
  }
#endif
  list.count = count;
  list.unsure_count = unsure_count;
}

inline std::int32_t number_of(std::int32_t column, std::int32_t row, const PixelGrid& grid) {
  return (row - grid.top) * grid.width + (column - grid.left);
}

void list_covered(const TriangleBatch& batch, std::size_t first, std::size_t last,
                  const PixelGrid& grid, PixelList& list) {
  for (std::size_t begin = first / 16 * 16; begin < last; begin += 16) {
    SixteenPixels found;
    std::int32_t corner[16], covered[16];
    for (std::size_t i = 0; i < 16; ++i) {
      const std::size_t slot = begin + i;
      found.slot[i] = static_cast<std::int32_t>(slot);
      const bool given = (slot >= first) & (slot < last);
      covered[i] = given ? batch.covered[slot] : 0;
      corner[i] = number_of(batch.left[slot], batch.top[slot], grid);
    }
    for (std::size_t pixel = 0; pixel < 4; ++pixel) {
      const std::int32_t offset =
          static_cast<std::int32_t>(pixel % 2) + (pixel < 2 ? 0 : grid.width);
      for (std::size_t i = 0; i < 16; ++i) {
        found.pixel[i] = corner[i] + offset;
        found.inside[i] = covered[i] & 1 << pixel;
        found.unsure[i] = covered[i] & 16 << pixel;
      }
      const std::size_t place = TriangleBatch::kMost * pixel + begin;
      for (std::size_t k = 0; k < 3; ++k) found.weights[k] = batch.weights[k] + place;
      found.depth = batch.depth + place;
      add_to_list(found, list);
    }
  }
}

THREEDFA_SIMD_INLINE void list_box(const TriangleBatch& batch, std::size_t slot,
                                   const PixelGrid& grid, PixelList& list) {
  const std::int32_t right = batch.right[slot], bottom = batch.bottom[slot];
  SixteenPixels found;
  alignas(64) float weights[3][16], depth[16];
  for (std::size_t k = 0; k < 3; ++k) found.weights[k] = weights[k];
  found.depth = depth;
  for (std::int32_t& each : found.slot) each = static_cast<std::int32_t>(slot);
  for (std::int32_t top = batch.top[slot]; top <= bottom; top += 4) {
    for (std::int32_t left = batch.left[slot]; left <= right; left += 4) {
      const std::int32_t corner = number_of(left, top, grid);
      for (std::int32_t i = 0; i < 16; ++i) {
        const std::int32_t column = i % 4, row = i / 4;
        const QuickFragment fragment =
            quick_fragment(batch, slot, static_cast<float>(left + column) - batch.corner_x[slot],
                           static_cast<float>(top + row) - batch.corner_y[slot]);
        const bool wanted = (left + column <= right) & (top + row <= bottom);
        found.inside[i] = fragment.inside & wanted;
        found.unsure[i] = fragment.unsure & wanted;
        found.pixel[i] = corner + row * grid.width + column;
        for (std::size_t k = 0; k < 3; ++k) weights[k][i] = fragment.weights[k];
        depth[i] = fragment.depth;
      }
      add_to_list(found, list);
    }
  }
}

void list_boxes(const TriangleBatch& batch, const std::uint8_t* slots, std::size_t count,
                const PixelGrid& grid, PixelList& list) {
  for (std::size_t k = 0; k < count; ++k) list_box(batch, slots[k], grid, list);
}

void cover_row(const Triangle& given, int y, int left, std::size_t count, PixelRow& row) {
  const Triangle triangle = given;
  const Edge* const edges = triangle.edges;
  const double row0 = value_in_row(edges[0], y), row1 = value_in_row(edges[1], y),
               row2 = value_in_row(edges[2], y);
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(count); ++i) {
    const double px = left + i;
    const Fragment fragment =
        fragment_at(triangle, value_at(edges[0], px, row0), value_at(edges[1], px, row1),
                    value_at(edges[2], px, row2));
    row.covered[i] = fragment.inside;
    for (int k = 0; k < 3; ++k) row.weights[k][i] = fragment.weights[k];
    row.depth[i] = fragment.depth;
  }
}

}  // namespace

extern const Loops THREEDFA_SIMD_LOOPS;
const Loops THREEDFA_SIMD_LOOPS = {
    THREEDFA_SIMD_NAME, add_rows,         overlaps_any,       resample_planes,
    blend_rows,         blend_normalized, normalize_pixels,   grey_row,
    normalize_grey,     resample_grey,    blend_grey,         scatter_areas,
    walk_areas,         unit_vectors,     unit_float_vectors, shade,
    find_bounds,        largest_index,    to_bytes,           set_up_triangles,
    list_covered,       list_boxes,       cover_row};

}  // namespace threedfa::simd
