// Included by one file for each instruction set, which sets THREEDFA_SIMD_NAME and compile flags.
// Nothing here may be a template or an inline function from elsewhere: the linker keeps one copy of
// those, which could be the one for instructions that the machine does not have.

#include <math.h>  // the C functions, which are not inline

#include <type_traits>

#include "loops.hpp"
#include "triangle.hpp"

#ifdef __AVX2__
#include <immintrin.h>
#endif

// Tells the compiler that what a loop writes is not what it reads.
#if defined(__clang__)
#define THREEDFA_SIMD_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define THREEDFA_SIMD_INDEPENDENT _Pragma("GCC ivdep")
#else
#define THREEDFA_SIMD_INDEPENDENT
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

template <class Value>
void add_rows_of(const Value* const* rows, const float* scales, std::size_t modes, std::size_t size,
                 std::size_t faces, const float* const* coefficients, float* const* sums) {
  std::size_t f = 0;
  for (; f + 4 <= faces; f += 4) {
    std::size_t k = 0;
    for (; k + 4 <= modes; k += 4) {
      add_some_rows<4, 4>(rows, scales, size, k, coefficients + f, sums + f);
    }
    for (; k < modes; ++k) {
      add_some_rows<1, 4>(rows, scales, size, k, coefficients + f, sums + f);
    }
  }
  for (; f < faces; ++f) {
    std::size_t k = 0;
    for (; k + 8 <= modes; k += 8) {
      add_some_rows<8, 1>(rows, scales, size, k, coefficients + f, sums + f);
    }
    for (; k < modes; ++k) {
      add_some_rows<1, 1>(rows, scales, size, k, coefficients + f, sums + f);
    }
  }
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

void unit_vectors(const double* __restrict vectors, std::size_t count, float* __restrict out) {
  for (std::size_t i = 0; i < count; ++i) {
    const double x = vectors[3 * i], y = vectors[3 * i + 1], z = vectors[3 * i + 2];
    const double length = sqrt(x * x + y * y + z * z);
    const double inverse = length > 0.0 ? 1.0 / length : 0.0;
    out[3 * i] = static_cast<float>(x * inverse);
    out[3 * i + 1] = static_cast<float>(y * inverse);
    out[3 * i + 2] = static_cast<float>(z * inverse);
  }
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

/// What single precision says of a triangle of a batch at a pixel.
struct QuickFragment {
  float weights[3], depth;
  bool inside, unsure;
};

/// `row1`, `row2`: weights 1 and 2 of the pixel's row at column 0.
inline QuickFragment quick_fragment(float along1, float along2, float row1, float row2, float x,
                                    float tolerance, float z, float rise1, float rise2) {
  const float w1 = along1 * x + row1, w2 = along2 * x + row2, w0 = 1.0f - w1 - w2;
  float least = w0 < w1 ? w0 : w1;
  least = least < w2 ? least : w2;
  const bool inside = least > tolerance;
  return {{w0, w1, w2}, z + (w1 * rise1 + w2 * rise2), inside, !(inside | (least < -tolerance))};
}

/// Looks at quad `at`, of triangle `slot`.
inline void cover_quad(const TriangleBatch& batch, std::size_t slot, std::size_t at,
                       PixelQuads& quads) {
  const float x = static_cast<float>(quads.left[at]) - batch.origin_x[slot];
  const float y = static_cast<float>(quads.top[at]) - batch.origin_y[slot];
  const float along1 = batch.along[0][slot], along2 = batch.along[1][slot];
  const float tolerance = batch.tolerance[slot], z = batch.z[slot];
  const float rise1 = batch.rise[0][slot], rise2 = batch.rise[1][slot];
  std::int32_t covered = 0, unsure = 0;
  for (std::size_t pixel = 0; pixel < 4; ++pixel) {
    const float py = y + static_cast<float>(pixel / 2);
    const QuickFragment fragment =
        quick_fragment(along1, along2, batch.down[0][slot] * py + batch.start[0][slot],
                       batch.down[1][slot] * py + batch.start[1][slot],
                       x + static_cast<float>(pixel % 2), tolerance, z, rise1, rise2);
    covered |= static_cast<std::int32_t>(fragment.inside) << pixel;
    unsure |= static_cast<std::int32_t>(fragment.unsure) << pixel;
    const std::size_t place = PixelQuads::kMost * pixel + at;
    for (std::size_t k = 0; k < 3; ++k) quads.weights[k][place] = fragment.weights[k];
    quads.depth[place] = fragment.depth;
  }
  const std::int32_t wanted = quads.wanted[at];
  quads.covered[at] = (covered & wanted) | (unsure & wanted) << 4;
}

void set_up_triangles(const MeshView& mesh, std::size_t first, std::size_t count,
                      const PixelWindow& window, TriangleBatch& out, PixelQuads& quads) {
  const float* __restrict const vertices = mesh.vertices;
  const std::int32_t* __restrict const triangles = mesh.triangles + 3 * first;
  constexpr auto kSmall = static_cast<float>(TriangleBatch::kSmall);
  constexpr float kError = 1.0f / (1 << 18);  // 64 roundings; fewer are made
  constexpr float kConstantError = 1.0f / (1 << 22);
  constexpr float kMostError = 1.0f / (1 << 13);
  const float infinity = static_cast<float>(INFINITY);
  constexpr std::size_t kMost = TriangleBatch::kMost;
  float x_of[3][kMost], y_of[3][kMost], z_of[3][kMost];
  for (std::size_t k = 0; k < 3; ++k) {
    for (std::size_t i = 0; i < count; ++i) {
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
                                float* __restrict origin, float* __restrict extent) {
    for (std::size_t i = 0; i < count; ++i) {
      const float a = at[0][i], b = at[1][i], c = at[2][i];
      float least = a < b ? a : b;
      least = least < c ? least : c;
      float most = a > b ? a : b;
      most = most > c ? most : c;
      origin[i] = floorf(least);
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
           batch.right, batch.origin_x, width);
  find_box(y_of, static_cast<float>(window.top), static_cast<float>(window.bottom), batch.top,
           batch.bottom, batch.origin_y, height);
  for (std::size_t i = 0; i < count; ++i) {
    // From a point beside the triangle, whatever the window, so that windows show the same.
    const float x0 = x_of[0][i] - batch.origin_x[i], y0 = y_of[0][i] - batch.origin_y[i];
    const float ux = x_of[1][i] - x_of[0][i], uy = y_of[1][i] - y_of[0][i];
    const float vx = x_of[2][i] - x_of[0][i], vy = y_of[2][i] - y_of[0][i];
    const float inverse = 1.0f / (ux * vy - vx * uy);
    const float along1 = vy * inverse, down1 = -vx * inverse;
    const float along2 = -uy * inverse, down2 = ux * inverse;
    // Zero, unless something is infinite or NaN; then nothing is sure, and nothing is drawn.
    const float zero = 0 * z_of[0][i] + 0 * z_of[1][i] + 0 * z_of[2][i];
    const float error =
        kError * (width[i] + 1.0f) * (height[i] + 1.0f) * fabsf(inverse) + kConstantError + zero;
    batch.small[i] = (width[i] < kSmall) & (height[i] < kSmall);
    batch.along[0][i] = along1;
    batch.along[1][i] = along2;
    batch.down[0][i] = down1;
    batch.down[1][i] = down2;
    batch.start[0][i] = -(along1 * x0 + down1 * y0);
    batch.start[1][i] = -(along2 * x0 + down2 * y0);
    batch.tolerance[i] = error < kMostError ? error : infinity;
    batch.z[i] = z_of[0][i];
    batch.rise[0][i] = z_of[1][i] - z_of[0][i];
    batch.rise[1][i] = z_of[2][i] - z_of[0][i];
  }
  THREEDFA_SIMD_INDEPENDENT
  for (std::size_t i = 0; i < count; ++i) {
    const std::int32_t columns = batch.right[i] - batch.left[i];
    const std::int32_t rows = batch.bottom[i] - batch.top[i];
    std::int32_t wanted = (columns > 0 ? 0b1111 : 0b0101) & (rows > 0 ? 0b1111 : 0b0011);
    quads.wanted[i] = (columns < 0) | (rows < 0) ? 0 : wanted;
    quads.left[i] = batch.left[i];
    quads.top[i] = batch.top[i];
    cover_quad(batch, i, i, quads);
  }
}

void cover_quads(const TriangleBatch& batch, std::size_t first, std::size_t last,
                 PixelQuads& quads) {
  THREEDFA_SIMD_INDEPENDENT
  for (std::size_t i = first; i < last; ++i) {
    cover_quad(batch, static_cast<std::size_t>(quads.slot[i]), i, quads);
  }
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
const Loops THREEDFA_SIMD_LOOPS = {THREEDFA_SIMD_NAME,
                                   add_rows,
                                   overlaps_any,
                                   blend_rows,
                                   resample_planes,
                                   normalize,
                                   normalize_every_third,
                                   unit_vectors,
                                   shade,
                                   set_up_triangles,
                                   cover_quads,
                                   cover_row};

}  // namespace threedfa::simd
