// Areas of triangles and their sums as unit vectors. Part of loops.inl.

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
void walk_areas(const float* vertices, const VertexRings::Pair* pairs,
                const VertexRings::Pair* pairs_end, const std::uint32_t* corners, float* areas) {
  const std::uint32_t* corner = corners;
  for (const VertexRings::Pair* pair = pairs; pair != pairs_end; ++pair) {
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
