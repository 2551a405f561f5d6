// Registers of numbers and what is done with them: sixteen with AVX-512, eight with
// AVX2, four with NEON, and in the plain build one, which is what the others are compared with. All
// compute the same to the last bit. Part of loops.inl.

#if defined(THREEDFA_SIMD_AVX512)
constexpr std::int32_t kLanes = 16;
using Mask = __mmask16;  ///< one bit for each lane
constexpr Mask kAll = 0xffff;
#elif defined(THREEDFA_SIMD_AVX2)
constexpr std::int32_t kLanes = 8;
#elif defined(THREEDFA_SIMD_NEON)
constexpr std::int32_t kLanes = 4;
#else
constexpr std::int32_t kLanes = 1;
#endif

#if defined(THREEDFA_SIMD_AVX2) || defined(THREEDFA_SIMD_NEON)
// Vectors of GCC and Clang: operators work lane by lane, also with a number on one side.
using Floats = float __attribute__((vector_size(4 * kLanes)));
using Ints = std::int32_t __attribute__((vector_size(4 * kLanes)));
using Words = std::uint32_t __attribute__((vector_size(4 * kLanes)));
#else
using Floats = float;
using Ints = std::int32_t;
using Words = std::uint32_t;
#endif
#ifndef THREEDFA_SIMD_AVX512
using Mask = Ints;  ///< all bits of a lane; of a single one the lowest
const Mask kAll = kLanes == 1 ? Ints{} + 1 : ~Ints{};
#endif

THREEDFA_SIMD_INLINE Floats load(const float* from) {
  Floats value;
  memcpy(&value, from, sizeof value);
  return value;
}
THREEDFA_SIMD_INLINE Ints load(const std::int32_t* from) {
  Ints value;
  memcpy(&value, from, sizeof value);
  return value;
}
THREEDFA_SIMD_INLINE Ints load(const std::int16_t* from) {
#if defined(THREEDFA_SIMD_AVX512)
  return reinterpret_cast<Ints>(
      _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
#elif defined(THREEDFA_SIMD_AVX2)
  return reinterpret_cast<Ints>(
      _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#elif defined(THREEDFA_SIMD_NEON)
  return vmovl_s16(vld1_s16(from));
#else
  return *from;
#endif
}
THREEDFA_SIMD_INLINE void store(float* to, Floats value) { memcpy(to, &value, sizeof value); }
THREEDFA_SIMD_INLINE void store(std::int32_t* to, Ints value) { memcpy(to, &value, sizeof value); }

THREEDFA_SIMD_INLINE Floats every(float value) { return value - Floats{}; }
THREEDFA_SIMD_INLINE Ints every(std::int32_t value) { return value - Ints{}; }

/// first, first + 1, ...
THREEDFA_SIMD_INLINE Ints numbered(std::int32_t first) {
  constexpr std::int32_t kNumbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return first + load(kNumbers);
}

#if defined(THREEDFA_SIMD_AVX512)

THREEDFA_SIMD_INLINE Mask less(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
THREEDFA_SIMD_INLINE Mask less(Ints a, Ints b) {
  return _mm512_cmplt_epi32_mask(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b));
}
THREEDFA_SIMD_INLINE Mask equal(Ints a, Ints b) {
  return _mm512_cmpeq_epi32_mask(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b));
}
THREEDFA_SIMD_INLINE Mask both(Mask a, Mask b) { return _kand_mask16(a, b); }
THREEDFA_SIMD_INLINE Mask either(Mask a, Mask b) { return _kor_mask16(a, b); }
THREEDFA_SIMD_INLINE Mask but_not(Mask a, Mask b) { return _kandn_mask16(b, a); }
/// a where the mask is set, else b.
THREEDFA_SIMD_INLINE Floats select(Mask mask, Floats a, Floats b) {
  return _mm512_mask_mov_ps(b, mask, a);
}
THREEDFA_SIMD_INLINE Ints select(Mask mask, Ints a, Ints b) {
  return reinterpret_cast<Ints>(
      _mm512_mask_mov_epi32(reinterpret_cast<__m512i>(b), mask, reinterpret_cast<__m512i>(a)));
}
/// a < b ? a : b: b if one is NaN.
THREEDFA_SIMD_INLINE Floats minimum(Floats a, Floats b) { return _mm512_min_ps(a, b); }
/// a > b ? a : b: b if one is NaN.
THREEDFA_SIMD_INLINE Floats maximum(Floats a, Floats b) { return _mm512_max_ps(a, b); }
/// Of numbers that an int32 holds.
THREEDFA_SIMD_INLINE Ints ceiling(Floats a) {
  return reinterpret_cast<Ints>(
      _mm512_cvt_roundps_epi32(a, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC));
}
THREEDFA_SIMD_INLINE Ints flooring(Floats a) {
  return reinterpret_cast<Ints>(
      _mm512_cvt_roundps_epi32(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));
}
THREEDFA_SIMD_INLINE Floats to_floats(Ints a) {
  return _mm512_cvtepi32_ps(reinterpret_cast<__m512i>(a));
}
THREEDFA_SIMD_INLINE Floats absolute(Floats a) { return _mm512_abs_ps(a); }
THREEDFA_SIMD_INLINE bool any(Mask mask) { return _kortestz_mask16_u8(mask, mask) == 0; }

#else

THREEDFA_SIMD_INLINE Mask less(Floats a, Floats b) { return a < b; }
THREEDFA_SIMD_INLINE Mask less(Ints a, Ints b) { return a < b; }
THREEDFA_SIMD_INLINE Mask equal(Ints a, Ints b) { return a == b; }
THREEDFA_SIMD_INLINE Mask both(Mask a, Mask b) { return a & b; }
THREEDFA_SIMD_INLINE Mask either(Mask a, Mask b) { return a | b; }
THREEDFA_SIMD_INLINE Mask but_not(Mask a, Mask b) { return a & ~b; }
THREEDFA_SIMD_INLINE Floats select(Mask mask, Floats a, Floats b) { return mask ? a : b; }
THREEDFA_SIMD_INLINE Ints select(Mask mask, Ints a, Ints b) { return mask ? a : b; }
#if defined(THREEDFA_SIMD_AVX2)
THREEDFA_SIMD_INLINE Floats minimum(Floats a, Floats b) { return _mm256_min_ps(a, b); }
THREEDFA_SIMD_INLINE Floats maximum(Floats a, Floats b) { return _mm256_max_ps(a, b); }
THREEDFA_SIMD_INLINE Ints ceiling(Floats a) {
  return reinterpret_cast<Ints>(_mm256_cvttps_epi32(_mm256_ceil_ps(a)));
}
THREEDFA_SIMD_INLINE Ints flooring(Floats a) {
  return reinterpret_cast<Ints>(_mm256_cvttps_epi32(_mm256_floor_ps(a)));
}
THREEDFA_SIMD_INLINE Floats to_floats(Ints a) {
  return _mm256_cvtepi32_ps(reinterpret_cast<__m256i>(a));
}
THREEDFA_SIMD_INLINE Floats absolute(Floats a) {
  return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
THREEDFA_SIMD_INLINE bool any(Mask mask) {
  return _mm256_movemask_epi8(reinterpret_cast<__m256i>(mask)) != 0;
}
#else
THREEDFA_SIMD_INLINE Floats minimum(Floats a, Floats b) { return select(less(a, b), a, b); }
THREEDFA_SIMD_INLINE Floats maximum(Floats a, Floats b) { return select(less(b, a), a, b); }
#if defined(THREEDFA_SIMD_NEON)
THREEDFA_SIMD_INLINE Ints ceiling(Floats a) { return vcvtpq_s32_f32(a); }
THREEDFA_SIMD_INLINE Ints flooring(Floats a) { return vcvtmq_s32_f32(a); }
THREEDFA_SIMD_INLINE Floats to_floats(Ints a) { return vcvtq_f32_s32(a); }
THREEDFA_SIMD_INLINE Floats absolute(Floats a) { return vabsq_f32(a); }
THREEDFA_SIMD_INLINE bool any(Mask mask) {
  return vmaxvq_u32(reinterpret_cast<uint32x4_t>(mask)) != 0;
}
#else
THREEDFA_SIMD_INLINE Ints ceiling(Floats a) {
  const auto whole = static_cast<std::int32_t>(a);
  return whole + (static_cast<float>(whole) < a);
}
THREEDFA_SIMD_INLINE Ints flooring(Floats a) {
  const auto whole = static_cast<std::int32_t>(a);
  return whole - (static_cast<float>(whole) > a);
}
THREEDFA_SIMD_INLINE Floats to_floats(Ints a) { return static_cast<float>(a); }
THREEDFA_SIMD_INLINE Floats absolute(Floats a) { return fabsf(a); }
THREEDFA_SIMD_INLINE bool any(Mask mask) { return mask != 0; }
#endif
#endif

#endif

#if defined(THREEDFA_SIMD_AVX2) && !defined(THREEDFA_SIMD_AVX512)
/// The lanes that are set, for each mask of eight bits.
struct LaneLists {
  std::uint8_t lanes[256][8];
};
constexpr LaneLists lane_lists() {
  LaneLists lists{};
  for (std::uint32_t mask = 0; mask < 256; ++mask) {
    for (std::uint32_t lane = 0, count = 0; lane < 8; ++lane) {
      if ((mask >> lane & 1) != 0) lists.lanes[mask][count++] = static_cast<std::uint8_t>(lane);
    }
  }
  return lists;
}
constexpr LaneLists kLaneLists = lane_lists();
#endif

/// The four bytes, lowest first, from each of these offsets on.
THREEDFA_SIMD_INLINE Words gathered(const std::uint8_t* bytes, Ints offsets) {
#if defined(THREEDFA_SIMD_AVX512)
  return reinterpret_cast<Words>(
      _mm512_i32gather_epi32(reinterpret_cast<__m512i>(offsets), bytes, 1));
#elif defined(THREEDFA_SIMD_AVX2)
  return reinterpret_cast<Words>(_mm256_i32gather_epi32(reinterpret_cast<const int*>(bytes),
                                                        reinterpret_cast<__m256i>(offsets), 1));
#else
  std::int32_t from[kLanes];
  std::uint32_t each[kLanes];
  store(from, offsets);
  for (std::int32_t lane = 0; lane < kLanes; ++lane) {
    memcpy(&each[lane], bytes + from[lane], sizeof each[lane]);
  }
  Words words;
  memcpy(&words, each, sizeof words);
  return words;
#endif
}

THREEDFA_SIMD_INLINE Floats as_floats(Words words) {
  Floats floats;
  memcpy(&floats, &words, sizeof floats);
  return floats;
}

THREEDFA_SIMD_INLINE Words to_words(Ints values) {
  Words words;
  memcpy(&words, &values, sizeof words);
  return words;
}

/// The lowest bytes as numbers.
THREEDFA_SIMD_INLINE Floats low_byte(Words words) {
  const Words bytes = words & 255;
  Ints values;
  memcpy(&values, &bytes, sizeof values);
  return to_floats(values);
}

/// Writes first + lane for each lane that is set, and up to fifteen numbers behind them; returns
/// how many are set. Without a branch: that cannot be foretold.
THREEDFA_SIMD_INLINE std::size_t list_set(Mask mask, std::int32_t first, std::int32_t* to) {
#if defined(THREEDFA_SIMD_AVX512)
  const auto numbers = reinterpret_cast<__m512i>(numbered(first));
  _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(mask, numbers));
  return static_cast<std::size_t>(__builtin_popcount(mask));
#elif defined(THREEDFA_SIMD_AVX2)
  const int bits = _mm256_movemask_ps(reinterpret_cast<__m256>(mask));
  const __m128i lanes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kLaneLists.lanes[bits]));
  store(to, reinterpret_cast<Ints>(_mm256_cvtepu8_epi32(lanes)) + first);
  return static_cast<std::size_t>(__builtin_popcount(static_cast<unsigned>(bits)));
#else
  std::int32_t set[kLanes];
  store(set, mask);
  std::size_t count = 0;
  for (std::int32_t lane = 0; lane < kLanes; ++lane) {
    to[count] = first + lane;
    count += static_cast<std::size_t>(set[lane] & 1);
  }
  return count;
#endif
}
