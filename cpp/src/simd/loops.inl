// Included by one file for each instruction set, which sets THREEDFA_SIMD_NAME and compile flags.
// Nothing here may be a template or an inline function from elsewhere: the linker keeps one copy of
// those, which could be the one for instructions that the machine does not have.

#include "loops.hpp"

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace threedfa::simd {
namespace {

void add_rows(const float* const* rows, const float* coefficients, std::size_t modes,
              std::size_t size, float* __restrict sums) {
  std::size_t k = 0;
  for (; k + 8 <= modes; k += 8) {  // eight rows for each pass over the sums
    const float* const* r = rows + k;
    const float* __restrict r0 = r[0];
    const float* __restrict r1 = r[1];
    const float* __restrict r2 = r[2];
    const float* __restrict r3 = r[3];
    const float* __restrict r4 = r[4];
    const float* __restrict r5 = r[5];
    const float* __restrict r6 = r[6];
    const float* __restrict r7 = r[7];
    const float* c = coefficients + k;
    const float c0 = c[0], c1 = c[1], c2 = c[2], c3 = c[3];
    const float c4 = c[4], c5 = c[5], c6 = c[6], c7 = c[7];
    for (std::size_t i = 0; i < size; ++i) {
      float sum = sums[i];
      sum += c0 * r0[i];
      sum += c1 * r1[i];
      sum += c2 * r2[i];
      sum += c3 * r3[i];
      sum += c4 * r4[i];
      sum += c5 * r5[i];
      sum += c6 * r6[i];
      sum += c7 * r7[i];
      sums[i] = sum;
    }
  }
  for (; k < modes; ++k) {
    const float* __restrict row = rows[k];
    const float coefficient = coefficients[k];
    for (std::size_t i = 0; i < size; ++i) sums[i] += coefficient * row[i];
  }
}

/// How many of `count` boxes overlap; without a branch, for whole vectors.
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
    found += static_cast<int>(united > 0.0f) & static_cast<int>(intersection / united >= threshold);
  }
  return found;
}

bool overlaps_any(const float* const* fields, std::size_t count, const float* box, float threshold,
                  float offset) {
  constexpr std::size_t kBlock = 64;  // boxes between two looks at the result
  for (std::size_t k = 0; k < count; k += kBlock) {
    const std::size_t size = count - k < kBlock ? count - k : kBlock;
    if (overlapping(fields[0] + k, fields[1] + k, fields[2] + k, fields[3] + k, fields[4] + k, size,
                    box, threshold, offset) != 0) {
      return true;
    }
  }
  return false;
}

void blend_rows(const std::int32_t* __restrict top, const std::int32_t* __restrict bottom,
                std::int32_t top_weight, std::int32_t bottom_weight, std::size_t count,
                std::uint8_t* __restrict out) {
  for (std::size_t i = 0; i < count; ++i) {
    const std::int32_t sum =
        ((top_weight * (top[i] >> 4)) >> 16) + ((bottom_weight * (bottom[i] >> 4)) >> 16) + 2;
    out[i] = static_cast<std::uint8_t>(sum >> 2);
  }
}

void resample_planes(const std::uint8_t* row, const std::int32_t* first, const std::int32_t* second,
                     const std::int32_t* first_weight, const std::int32_t* second_weight,
                     std::size_t count, std::int32_t* sums) {
  std::size_t i = 0;
#ifdef __AVX512F__
  for (; i + 16 <= count; i += 16) {
    const __m512i a = _mm512_i32gather_epi32(_mm512_loadu_si512(first + i), row, 1);
    const __m512i b = _mm512_i32gather_epi32(_mm512_loadu_si512(second + i), row, 1);
    // Pixel and weight are 16-bit pairs, so that one instruction multiplies both and adds.
    const __m512i weights =
        _mm512_or_si512(_mm512_loadu_si512(first_weight + i),
                        _mm512_slli_epi32(_mm512_loadu_si512(second_weight + i), 16));
    const __m512i byte = _mm512_set1_epi32(255);
    for (int c = 0; c < 3; ++c) {
      const __m512i low = _mm512_and_si512(_mm512_srli_epi32(a, 8 * c), byte);
      const __m512i high = _mm512_and_si512(_mm512_srli_epi32(b, 8 * c), byte);
      const __m512i pair = _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
      _mm512_storeu_si512(sums + static_cast<std::size_t>(c) * count + i,
                          _mm512_madd_epi16(pair, weights));
    }
  }
#elif defined(__AVX2__)
  for (; i + 8 <= count; i += 8) {
    const auto load = [](const std::int32_t* from) __attribute__((always_inline)) {
      return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    };
    const __m256i a = _mm256_i32gather_epi32(reinterpret_cast<const int*>(row), load(first + i), 1);
    const __m256i b =
        _mm256_i32gather_epi32(reinterpret_cast<const int*>(row), load(second + i), 1);
    // Pixel and weight are 16-bit pairs, so that one instruction multiplies both and adds.
    const __m256i weights =
        _mm256_or_si256(load(first_weight + i), _mm256_slli_epi32(load(second_weight + i), 16));
    const __m256i byte = _mm256_set1_epi32(255);
    for (int c = 0; c < 3; ++c) {
      const __m256i low = _mm256_and_si256(_mm256_srli_epi32(a, 8 * c), byte);
      const __m256i high = _mm256_and_si256(_mm256_srli_epi32(b, 8 * c), byte);
      const __m256i pair = _mm256_or_si256(low, _mm256_slli_epi32(high, 16));
      _mm256_storeu_si256(
          reinterpret_cast<__m256i*>(sums + static_cast<std::size_t>(c) * count + i),
          _mm256_madd_epi16(pair, weights));
    }
  }
#endif
  for (std::size_t c = 0; c < 3; ++c) {
    std::int32_t* const plane = sums + c * count;
    for (std::size_t k = i; k < count; ++k) {
      plane[k] = first_weight[k] * row[static_cast<std::size_t>(first[k]) + c] +
                 second_weight[k] * row[static_cast<std::size_t>(second[k]) + c];
    }
  }
}

void normalize(const std::uint8_t* __restrict pixels, std::size_t count, float mean, float scale,
               float* __restrict out) {
  for (std::size_t i = 0; i < count; ++i) {
    out[i] = (static_cast<float>(pixels[i]) - mean) * scale;
  }
}

void normalize_every_third(const std::uint8_t* __restrict pixels, std::size_t count, float mean,
                           float scale, float* __restrict out) {
  for (std::size_t i = 0; i < count; ++i) {
    out[i] = (static_cast<float>(pixels[3 * i]) - mean) * scale;
  }
}

}  // namespace

extern const Loops THREEDFA_SIMD_LOOPS;
const Loops THREEDFA_SIMD_LOOPS = {THREEDFA_SIMD_NAME, add_rows,  overlaps_any,         blend_rows,
                                   resample_planes,    normalize, normalize_every_third};

}  // namespace threedfa::simd
