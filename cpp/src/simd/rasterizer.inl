// Pixels that triangles cover. Part of loops.inl.

/// Corners of as many triangles as there are lanes.
struct Corners {
  Floats x, y, z;
};

/// Corner `k` of the first `count` triangles; those behind are the first one again.
THREEDFA_SIMD_INLINE Corners corners_of(const MeshView& mesh, const std::int32_t* triangles,
                                        std::int32_t count, std::int32_t k) {
  float x[kLanes], y[kLanes], z[kLanes];
  for (std::int32_t i = 0; i < kLanes; ++i) {
    const float* const corner = mesh.vertices + 3 * triangles[3 * (i < count ? i : 0) + k];
    x[i] = corner[0];
    y[i] = corner[1];
    z[i] = corner[2];
  }
  return {load(x), load(y), load(z)};
}

#ifdef THREEDFA_SIMD_AVX2
/// The same of triangles that are all there and have nothing to do with the last vertex: each
/// corner is loaded at once, with the float behind it, and four to a register are turned into x, y
/// and z.
THREEDFA_SIMD_INLINE Corners corners_of(const MeshView& mesh, const std::int32_t* triangles,
                                        std::int32_t k) {
  const auto corner = [=](std::ptrdiff_t t) __attribute__((always_inline)) {
    return _mm_loadu_ps(mesh.vertices + 3 * static_cast<std::ptrdiff_t>(triangles[3 * t + k]));
  };
#ifdef THREEDFA_SIMD_AVX512
  const auto corners = [=](std::ptrdiff_t t) __attribute__((always_inline)) {
    __m512 all = _mm512_castps128_ps512(corner(t));
    all = _mm512_insertf32x4(all, corner(t + 4), 1);
    all = _mm512_insertf32x4(all, corner(t + 8), 2);
    return _mm512_insertf32x4(all, corner(t + 12), 3);
  };
  const __m512 a = corners(0), b = corners(1), c = corners(2), d = corners(3);
  const __m512 xy_ab = _mm512_unpacklo_ps(a, b), xy_cd = _mm512_unpacklo_ps(c, d);
  const __m512 z_ab = _mm512_unpackhi_ps(a, b), z_cd = _mm512_unpackhi_ps(c, d);
  return {_mm512_shuffle_ps(xy_ab, xy_cd, 0b01'00'01'00),
          _mm512_shuffle_ps(xy_ab, xy_cd, 0b11'10'11'10),
          _mm512_shuffle_ps(z_ab, z_cd, 0b01'00'01'00)};
#else
  const auto corners = [=](std::ptrdiff_t t) __attribute__((always_inline)) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(corner(t)), corner(t + 4), 1);
  };
  const __m256 a = corners(0), b = corners(1), c = corners(2), d = corners(3);
  const __m256 xy_ab = _mm256_unpacklo_ps(a, b), xy_cd = _mm256_unpacklo_ps(c, d);
  const __m256 z_ab = _mm256_unpackhi_ps(a, b), z_cd = _mm256_unpackhi_ps(c, d);
  return {_mm256_shuffle_ps(xy_ab, xy_cd, 0b01'00'01'00),
          _mm256_shuffle_ps(xy_ab, xy_cd, 0b11'10'11'10),
          _mm256_shuffle_ps(z_ab, z_cd, 0b01'00'01'00)};
#endif
}
#endif

/// The first and the last pixel of the window along an axis, and those outside next to them.
struct Limits {
  Floats before, first, last, behind;
};

THREEDFA_SIMD_INLINE Limits limits_of(std::int32_t first, std::int32_t last) {
  const auto begin = static_cast<float>(first), end = static_cast<float>(last);
  return {every(begin - 1.0f), every(begin), every(end), every(end + 1.0f)};
}

/// Pixel centres of the triangles along an axis, from the first to the last in the window, and how
/// far apart the corners are.
struct Extent {
  Ints first, last;
  Floats size;
};

THREEDFA_SIMD_INLINE Extent extent_of(Floats a, Floats b, Floats c, const Limits& limits) {
  const Floats low = minimum(minimum(a, b), c), high = maximum(maximum(a, b), c);
  // Clipped while they are floating point, so that they fit an int; of NaN nothing is left.
  return {ceiling(minimum(maximum(low, limits.first), limits.behind)),
          flooring(minimum(maximum(high, limits.before), limits.last)), high - low};
}

void set_up_triangles(const MeshView& mesh, std::size_t first, std::size_t count,
                      const PixelWindow& window, const PixelGrid& grid, TriangleBatch& batch) {
  constexpr auto kMost = static_cast<float>(TriangleBatch::kMostPixels);
  constexpr float kError = 1.0f / (1 << 19);  // 32 roundings; fewer are made
  constexpr float kConstantError = 1.0f / (1 << 22);
  constexpr float kUnderflow = 7.9e-31f;  // far above what products lose there
  constexpr float kMostError = 1.0f / (1 << 13);
  const std::int32_t* triangles = mesh.triangles + 3 * first;
  const auto end = static_cast<std::int32_t>(count);
  const Limits limits_x = limits_of(window.left, window.right);
  const Limits limits_y = limits_of(window.top, window.bottom);
  batch.any_small = false;
  batch.other_count = 0;
  for (std::int32_t begin = 0; begin < end; begin += kLanes, triangles += 3 * kLanes) {
    Corners corner[3];
#ifdef THREEDFA_SIMD_AVX2
    const Ints last = every(mesh.last);
    if (end - begin >= kLanes &&
        !any(either(either(equal(load(triangles), last), equal(load(triangles + kLanes), last)),
                    equal(load(triangles + 2 * kLanes), last)))) {
      corner[0] = corners_of(mesh, triangles, 0);
      corner[1] = corners_of(mesh, triangles, 1);
      corner[2] = corners_of(mesh, triangles, 2);
    } else
#endif
    {
      corner[0] = corners_of(mesh, triangles, end - begin, 0);
      corner[1] = corners_of(mesh, triangles, end - begin, 1);
      corner[2] = corners_of(mesh, triangles, end - begin, 2);
    }
    const Floats x = corner[0].x, y = corner[0].y, z = corner[0].z;
    const Extent across = extent_of(x, corner[1].x, corner[2].x, limits_x);
    const Extent downwards = extent_of(y, corner[1].y, corner[2].y, limits_y);
    const Ints columns = across.last - across.first, rows = downwards.last - downwards.first;
    const Mask given = but_not(less(numbered(begin), every(end)), less(columns | rows, Ints{}));
    if (!any(given)) {
      store(batch.kind + begin, Ints{});
      continue;
    }
    const Mask few =
        both(given, both(less(across.size, every(kMost)), less(downwards.size, every(kMost))));
    const Mask small = both(few, both(less(columns, every(4)), less(rows, every(4))));
    const Ints kind = select(few, every(TriangleBatch::kMedium), every(TriangleBatch::kLarge));
    store(batch.kind + begin,
          select(given, select(small, every(TriangleBatch::kSmall), kind), Ints{}));
    batch.any_small |= any(small);
    batch.other_count += list_set(but_not(given, small), begin, batch.others + batch.other_count);
    store(batch.triangle + begin, numbered(static_cast<std::int32_t>(first) + begin));
    store(batch.left + begin, across.first);
    store(batch.top + begin, downwards.first);
    store(batch.columns + begin, columns);
    store(batch.rows + begin, rows);
    store(batch.pixel + begin,
          (downwards.first - grid.top) * grid.width + (across.first - grid.left));

    const Floats ux = corner[1].x - x, uy = corner[1].y - y;
    const Floats vx = corner[2].x - x, vy = corner[2].y - y;
    const Floats inverse = 1.0f / (ux * vy - vx * uy);
    const Floats along[] = {vy * inverse, -uy * inverse}, down[] = {-vx * inverse, ux * inverse};
    store(batch.x + begin, x);
    store(batch.y + begin, y);
    const Floats rise[] = {corner[1].z - z, corner[2].z - z};
    for (std::size_t k = 0; k < 2; ++k) {
      store(batch.along[k] + begin, along[k]);
      store(batch.down[k] + begin, down[k]);
      store(batch.rise[k] + begin, rise[k]);
    }
    store(batch.z + begin, z);
    // Zero, unless something is infinite or NaN; then nothing is sure, and nothing is drawn.
    const Floats zero = 0.0f * z + 0.0f * rise[0] + 0.0f * rise[1];
    const Floats error = kError * (across.size * downwards.size + kUnderflow) * absolute(inverse) +
                         kConstantError + zero;
    const Floats tolerance =
        select(less(error, every(kMostError)), error, every(static_cast<float>(INFINITY)));
    store(batch.inside + begin, tolerance);
    store(batch.outside + begin, -tolerance);
  }
}

/// Triangles of a batch: one in each lane, or the same one in all of them.
struct TriangleLanes {
  Floats x, y, along[2], down[2], inside, outside, z, rise[2];
  Ints triangle, left, top, columns, rows, pixel;
};

/// From `from[slot]` on, one in each lane, or that one in all of them.
THREEDFA_SIMD_INLINE Floats taken(const float* from, std::int32_t slot, bool same) {
  return same ? every(from[slot]) : load(from + slot);
}
THREEDFA_SIMD_INLINE Ints taken(const std::int32_t* from, std::int32_t slot, bool same) {
  return same ? every(from[slot]) : load(from + slot);
}

THREEDFA_SIMD_INLINE TriangleLanes triangles_at(const TriangleBatch& batch, std::int32_t slot,
                                                bool same) {
  return {taken(batch.x, slot, same),
          taken(batch.y, slot, same),
          {taken(batch.along[0], slot, same), taken(batch.along[1], slot, same)},
          {taken(batch.down[0], slot, same), taken(batch.down[1], slot, same)},
          taken(batch.inside, slot, same),
          taken(batch.outside, slot, same),
          taken(batch.z, slot, same),
          {taken(batch.rise[0], slot, same), taken(batch.rise[1], slot, same)},
          taken(batch.triangle, slot, same),
          taken(batch.left, slot, same),
          taken(batch.top, slot, same),
          taken(batch.columns, slot, same),
          taken(batch.rows, slot, same),
          taken(batch.pixel, slot, same)};
}

/// How far a list is filled, apart from it, so that it stays in registers.
struct Filled {
  std::size_t size, inside, unsure;
};

THREEDFA_SIMD_INLINE Filled filled(const FragmentList& list) {
  return {list.size, list.inside_count, list.unsure_count};
}

THREEDFA_SIMD_INLINE void set_filled(const Filled& filled, FragmentList& list) {
  list.size = filled.size;
  list.inside_count = filled.inside;
  list.unsure_count = filled.unsure;
}

/// Adds the pixels `x` columns and `y` rows from the triangles' corners 0 to the list, except where
/// all that are wanted are outside.
THREEDFA_SIMD_INLINE void add_fragments(const TriangleLanes& of, Floats x, Floats y, Mask wanted,
                                        Ints pixel, FragmentList& list, Filled& filled) {
  const Floats w1 = of.along[0] * x + of.down[0] * y;
  const Floats w2 = of.along[1] * x + of.down[1] * y;
  const Floats w0 = 1.0f - w1 - w2, lowest = minimum(minimum(w1, w2), w0);
  const Mask maybe = but_not(wanted, less(lowest, of.outside));
  const Mask inside = both(maybe, less(of.inside, lowest)), unsure = but_not(maybe, inside);
  const std::size_t at = filled.size;
  const auto place = static_cast<std::int32_t>(at);
  store(list.pixel + at, pixel);
  store(list.triangle + at, of.triangle);
  store(list.weights[0] + at, w0);
  store(list.weights[1] + at, w1);
  store(list.weights[2] + at, w2);
  store(list.depth + at, of.z + (w1 * of.rise[0] + w2 * of.rise[1]));
  filled.inside += list_set(inside, place, list.inside + filled.inside);
  if (any(unsure)) filled.unsure += list_set(unsure, place, list.unsure + filled.unsure);
  filled.size += any(maybe) ? kLanes : 0;
}

void cover_small(const TriangleBatch& batch, std::size_t first, std::size_t last,
                 const PixelGrid& grid, FragmentList& list) {
  const auto from = static_cast<std::int32_t>(first), to = static_cast<std::int32_t>(last);
  Filled now = filled(list);
  for (std::int32_t begin = from / kLanes * kLanes; begin < to; begin += kLanes) {
    const Ints slots = numbered(begin);
    const Mask given = but_not(less(slots, every(to)), less(slots, every(from)));
    const Mask small = both(given, equal(load(batch.kind + begin), every(TriangleBatch::kSmall)));
    if (!any(small)) continue;
    const TriangleLanes triangles = triangles_at(batch, begin, false);
    // The pixels of all boxes side by side, as far as the largest of them goes.
    Ints row{}, first_of_row = triangles.pixel;
    const Floats left = to_floats(triangles.left);
    Floats y = to_floats(triangles.top);
    for (Mask with_row = small; any(with_row);
         with_row = but_not(small, less(triangles.rows, row))) {
      Ints column{}, pixel = first_of_row;
      Floats x = left;
      for (Mask wanted = with_row; any(wanted);
           wanted = but_not(with_row, less(triangles.columns, column))) {
        add_fragments(triangles, x - triangles.x, y - triangles.y, wanted, pixel, list, now);
        column = column + 1;
        pixel = pixel + 1;
        x = x + 1.0f;
      }
      row = row + 1;
      first_of_row = first_of_row + grid.width;
      y = y + 1.0f;
    }
  }
  set_filled(now, list);
}

void cover_medium(const TriangleBatch& batch, const std::int32_t* slots, std::size_t count,
                  const PixelGrid& grid, FragmentList& list) {
  // Pixels of up to four columns at once, and as many rows of them as there are lanes for.
  constexpr std::int32_t kColumns = kLanes < 4 ? kLanes : 4, kRows = kLanes / kColumns;
  const Ints column = numbered(0) & (kColumns - 1), row = numbered(0) / kColumns;
  Filled now = filled(list);
  for (std::size_t k = 0; k < count; ++k) {
    const std::int32_t slot = slots[k];
    const TriangleLanes triangle = triangles_at(batch, slot, true);
    Ints y = row, first_of_row = triangle.pixel + (row * grid.width + column);
    for (std::int32_t top = 0; top <= batch.rows[slot]; top += kRows) {
      const Mask with_row = but_not(kAll, less(triangle.rows, y));
      Ints x = column, pixel = first_of_row;
      for (std::int32_t left = 0; left <= batch.columns[slot]; left += kColumns) {
        const Mask wanted = but_not(with_row, less(triangle.columns, x));
        add_fragments(triangle, to_floats(triangle.left + x) - triangle.x,
                      to_floats(triangle.top + y) - triangle.y, wanted, pixel, list, now);
        x = x + kColumns;
        pixel = pixel + kColumns;
      }
      y = y + kRows;
      first_of_row = first_of_row + kRows * grid.width;
    }
  }
  set_filled(now, list);
}

void cover_row(const Triangle& given, std::int32_t number, std::int32_t y, std::int32_t left,
               std::int32_t count, const PixelGrid& grid, FragmentList& list) {
  const Triangle triangle = given;
  const Edge* const edges = triangle.edges;
  const double row0 = value_in_row(edges[0], y), row1 = value_in_row(edges[1], y),
               row2 = value_in_row(edges[2], y);
  const std::int32_t first = (y - grid.top) * grid.width + (left - grid.left);
  const std::size_t at = list.size;
  std::int32_t* __restrict const pixel = list.pixel + at;
  std::int32_t* __restrict const triangles = list.triangle + at;
  float* __restrict const w0 = list.weights[0] + at;
  float* __restrict const w1 = list.weights[1] + at;
  float* __restrict const w2 = list.weights[2] + at;
  float* __restrict const depth = list.depth + at;
  std::int32_t covered[FragmentList::kMostInRow];
  for (std::int32_t i = 0; i < count; ++i) {
    const double px = left + i;
    const Fragment fragment =
        fragment_at(triangle, value_at(edges[0], px, row0), value_at(edges[1], px, row1),
                    value_at(edges[2], px, row2));
    covered[i] = fragment.inside;
    pixel[i] = first + i;
    triangles[i] = number;
    w0[i] = fragment.weights[0];
    w1[i] = fragment.weights[1];
    w2[i] = fragment.weights[2];
    depth[i] = fragment.depth;
  }
  for (std::int32_t i = 0; i < count; ++i) {
    list.inside[list.inside_count] = static_cast<std::int32_t>(at) + i;
    list.inside_count += static_cast<std::size_t>(covered[i]);
  }
  list.size += static_cast<std::size_t>(count);
}

/// What is shown at a place of the list.
struct Shown {
  std::size_t corners[3], pixel;
  float w1, w2;
};

THREEDFA_SIMD_INLINE Shown shown_at(const FragmentList& list, std::int32_t place,
                                    const Attributes& attributes) {
  const std::int32_t* const corners =
      attributes.triangles + 3 * static_cast<std::size_t>(list.triangle[place]);
  return {{static_cast<std::size_t>(corners[0]), static_cast<std::size_t>(corners[1]),
           static_cast<std::size_t>(corners[2])},
          static_cast<std::size_t>(list.pixel[place]),
          list.weights[1][place],
          list.weights[2][place]};
}

/// A channel there, so that equal attributes stay as they are: the weights' sum is a little off 1.
THREEDFA_SIMD_INLINE float blended(const Shown& shown, const Attributes& attributes,
                                   std::size_t channels, std::size_t n) {
  const float a = attributes.values[channels * shown.corners[0] + n];
  const float b = attributes.values[channels * shown.corners[1] + n];
  const float c = attributes.values[channels * shown.corners[2] + n];
  return a + (shown.w1 * (b - a) + shown.w2 * (c - a));
}

/// `channels`: a constant where the loop over them should have a fixed length.
THREEDFA_SIMD_INLINE void paint_channels(const FragmentList& list, const std::int32_t* places,
                                         std::size_t count, const Attributes& attributes,
                                         std::size_t channels, float* image) {
  for (std::size_t k = 0; k < count; ++k) {
    const Shown shown = shown_at(list, places[k], attributes);
    float* const out = image + channels * shown.pixel;
    for (std::size_t n = 0; n < channels; ++n) {
      out[n] = blended(shown, attributes, channels, n);
    }
  }
}

/// Where the bytes of a grid's pixels are.
struct BytePlaces {
  std::uint8_t* data;
  std::ptrdiff_t pixel, skipped;  ///< bytes of a pixel, and from the end of a row to the next one
  std::uint64_t rows;             ///< of a pixel, times 2^shift, rounded up
  std::int32_t shift;

  THREEDFA_SIMD_INLINE std::uint8_t* at(std::size_t number) const {
    const auto row = static_cast<std::ptrdiff_t>(number * rows >> shift);
    return data + (static_cast<std::ptrdiff_t>(number) * pixel + row * skipped);
  }
};

/// Division by multiplication (Granlund and Montgomery 1994): `shift` is so large that what was
/// rounded up, less than the width for each of less than 2^30 pixels, stays below 2^shift, and so
/// small that products fit 64 bits.
THREEDFA_SIMD_INLINE BytePlaces byte_places(const ByteTarget& target) {
  const auto width = static_cast<std::uint64_t>(target.width);
  std::int32_t shift = 33;
  for (std::uint64_t rest = width; rest > 1; rest /= 2) ++shift;
  const auto pixel = static_cast<std::ptrdiff_t>(target.channels);
  const std::uint64_t rows = ((std::uint64_t{1} << shift) + width - 1) / width;
  return {target.data, pixel, target.row_stride - target.width * pixel, rows, shift};
}

/// The same for bytes, of which `alike` follow from each channel.
THREEDFA_SIMD_INLINE void paint_byte_channels(const FragmentList& list, const std::int32_t* places,
                                              std::size_t count, const Attributes& attributes,
                                              std::size_t channels, std::size_t alike,
                                              const ByteTarget& target) {
  const BytePlaces bytes = byte_places(target);
  const float scale = target.scale;
  for (std::size_t k = 0; k < count; ++k) {
    const Shown shown = shown_at(list, places[k], attributes);
    std::uint8_t* const out = bytes.at(shown.pixel);
    for (std::size_t n = 0; n < channels; ++n) {
      const float value = blended(shown, attributes, channels, n) * scale;
      const float positive = value > 0.0f ? value : 0.0f;
      const float fitting = positive < 255.0f ? positive : 255.0f;
      const auto byte = static_cast<std::uint8_t>(static_cast<std::int32_t>(fitting));
      for (std::size_t i = 0; i < alike; ++i) out[n * alike + i] = byte;
    }
  }
}

#ifdef THREEDFA_SIMD_AVX2
/// The same for three channels, one vertex to a register; what is behind them means nothing.
THREEDFA_SIMD_INLINE __m128 three_blended(const Shown& shown, const Attributes& attributes) {
  const __m128i three = _mm_setr_epi32(-1, -1, -1, 0);
  const __m128 a = _mm_maskload_ps(attributes.values + 3 * shown.corners[0], three);
  const __m128 b = _mm_maskload_ps(attributes.values + 3 * shown.corners[1], three);
  const __m128 c = _mm_maskload_ps(attributes.values + 3 * shown.corners[2], three);
  return a + (_mm_set1_ps(shown.w1) * (b - a) + _mm_set1_ps(shown.w2) * (c - a));
}

void paint_three_channels(const FragmentList& list, const std::int32_t* places, std::size_t count,
                          const Attributes& attributes, float* image) {
  for (std::size_t k = 0; k < count; ++k) {
    const Shown shown = shown_at(list, places[k], attributes);
    const __m128 color = three_blended(shown, attributes);
    float* const out = image + 3 * shown.pixel;
    _mm_storel_pi(reinterpret_cast<__m64*>(out), color);
    _mm_store_ss(out + 2, _mm_movehl_ps(color, color));
  }
}

THREEDFA_SIMD_INLINE void paint_three_bytes(const FragmentList& list, const std::int32_t* places,
                                            std::size_t count, const Attributes& attributes,
                                            const ByteTarget& target) {
  const BytePlaces bytes = byte_places(target);
  const __m128 scale = _mm_set1_ps(target.scale), most = _mm_set1_ps(255.0f);
  const __m128i lowest_bytes = _mm_set1_epi32(0x0c'08'04'00);
  for (std::size_t k = 0; k < count; ++k) {
    const Shown shown = shown_at(list, places[k], attributes);
    // Zero comes second: it is taken where the first is NaN.
    const __m128 color = _mm_max_ps(three_blended(shown, attributes) * scale, _mm_setzero_ps());
    const __m128i whole = _mm_cvttps_epi32(_mm_min_ps(color, most));
    const std::int32_t three = _mm_cvtsi128_si32(_mm_shuffle_epi8(whole, lowest_bytes));
    std::uint8_t* const out = bytes.at(shown.pixel);
    memcpy(out, &three, 2);
    out[2] = static_cast<std::uint8_t>(three >> 16);
  }
}
#endif

void paint_attributes(const FragmentList& list, const std::int32_t* places, std::size_t count,
                      const Attributes& attributes, float* image) {
  switch (attributes.channels) {
    case 1:
      return paint_channels(list, places, count, attributes, 1, image);
    case 3:
#ifdef THREEDFA_SIMD_AVX2
      return paint_three_channels(list, places, count, attributes, image);
#else
      return paint_channels(list, places, count, attributes, 3, image);
#endif
    default:
      return paint_channels(list, places, count, attributes, attributes.channels, image);
  }
}

void paint_bytes(const FragmentList& list, const std::int32_t* places, std::size_t count,
                 const Attributes& given, const ByteTarget& target) {
  const Attributes attributes = given;  // which bytes that are written cannot change
  if (attributes.channels == 1 && target.channels == 3) {
    return paint_byte_channels(list, places, count, attributes, 1, 3, target);
  }
#ifdef THREEDFA_SIMD_AVX2
  if (attributes.channels == 3) return paint_three_bytes(list, places, count, attributes, target);
#endif
  paint_byte_channels(list, places, count, attributes, attributes.channels, 1, target);
}
