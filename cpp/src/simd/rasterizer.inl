// Pixels that triangles cover. Part of loops.inl.

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
