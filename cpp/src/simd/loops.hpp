#pragma once

// The innermost loops of the kernels, once for each instruction set.

#include <cstddef>
#include <cstdint>

namespace threedfa::simd {

/// One build of the loops. All builds come from the same source (loops.inl) without fused
/// multiply-add and without reordering, so they give the same results to the last bit.
struct Loops {
  const char* name;

  /// sums[i] += c[0] * rows[0][i], then c[1] * rows[1][i], ... for `modes` rows of `size` floats.
  void (*add_rows)(const float* const* rows, const float* coefficients, std::size_t modes,
                   std::size_t size, float* sums);

  /// Whether a box (x1, y1, x2, y2, area) overlaps any of `count` boxes, given as one array per
  /// field, by at least `threshold` of their union. `offset` is added to the sides of the overlap.
  bool (*overlaps_any)(const float* const* fields, std::size_t count, const float* box,
                       float threshold, float offset);

  /// Two rows of sums of 11-bit weights times pixels to 8 bits, OpenCV's way.
  void (*blend_rows)(const std::int32_t* top, const std::int32_t* bottom, std::int32_t top_weight,
                     std::int32_t bottom_weight, std::size_t count, std::uint8_t* out);

  /// A row of three-channel pixels resampled along x: for each of the `count` output pixels, the
  /// sums of weight times pixel of two source pixels, which start `first[i]` and `second[i]` bytes
  /// into the row; channel after channel, 3 x count. Reads up to one byte behind the pixels.
  void (*resample_planes)(const std::uint8_t* row, const std::int32_t* first,
                          const std::int32_t* second, const std::int32_t* first_weight,
                          const std::int32_t* second_weight, std::size_t count, std::int32_t* sums);

  /// out[i] = (pixels[i] - mean) * scale.
  void (*normalize)(const std::uint8_t* pixels, std::size_t count, float mean, float scale,
                    float* out);

  /// out[i] = (pixels[3 * i] - mean) * scale.
  void (*normalize_every_third)(const std::uint8_t* pixels, std::size_t count, float mean,
                                float scale, float* out);
};

/// The plain build, which reads nothing that it does not need.
extern const Loops scalar_loops;

/// The builds that this machine can run, the plain one first and the fastest last.
/// `count` receives their number.
const Loops* const* available(std::size_t& count);

/// The fastest build, or the one that the environment variable THREEDFA_SIMD names (scalar, avx2,
/// avx512): read once, at the first call; a name that is unknown or cannot run is ignored.
const Loops& loops();

}  // namespace threedfa::simd
