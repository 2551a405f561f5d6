#pragma once

// The innermost loops of the kernels, once for each instruction set.

#include <cstddef>
#include <cstdint>

#include "threedfa/vertex_rings.hpp"

namespace threedfa::simd {

/// Rows of a basis: floats or, where `scales` is not null, integers of which row k stands for
/// scales[k] * steps[k].
struct BasisRows {
  const float* const* floats;
  const std::int16_t* const* steps;
  const float* scales;
};

/// Vertices V x 3 and triangles T x 3, so few that int32 counts the elements of either.
struct MeshView {
  const float* vertices;
  const std::int32_t* triangles;
  std::int32_t last;  ///< number of the last vertex
};

/// Two rows of sums of 11-bit weights times pixels, in sixteenths (grey ones: of pixels times
/// kGreyOne), and the rows' own weights. OpenCV rounds twice, but once where a picture is halved:
/// then all weights are 1024, or 0.
struct RowPair {
  const std::int16_t *top, *bottom;
  std::int32_t top_weight, bottom_weight;
  bool halved;
};

/// A light and a material for vertices that are first moved to (v - least) / extent * 2 - half.
struct ShadingTerms {
  float least[3], half[3], extent;
  float light[3], view[3];  ///< positions
  float ambient, diffuse, specular;
  int shininess;
};

/// Columns left..right and rows top..bottom of a picture, each from 0 to 2^24.
struct PixelWindow {
  std::int32_t left, right, top, bottom;
};

/// Numbers of pixels: (row - top) * width + column - left. Seven rows below the last one of a
/// picture, where nothing is painted, they still fit an int.
struct PixelGrid {
  std::int32_t left, top, width;
};

/// Successive triangles, set up to be tested at pixels in single precision. A triangle's weights 1
/// and 2 at column `c` and row `r` are along[k] * (c - x) + down[k] * (r - y), all rounded; weight
/// 0 is what they leave of 1. A pixel is inside where all three are above one bound, outside where
/// one is below another; in between only exact arithmetic can tell.
struct TriangleBatch {
  static constexpr std::size_t kMost = 64;
  static constexpr int kMostPixels = 16;  ///< wide and high; more of them would not fit the list
  /// What a triangle's box holds: nothing to be drawn, at most four columns and rows of pixels,
  /// more of them, or so many that single precision will not do.
  enum Kind : std::int32_t { kEmpty, kSmall, kMedium, kLarge };
  alignas(64) std::int32_t kind[kMost];
  alignas(64) std::int32_t triangle[kMost];  ///< its number
  /// First column and row of pixel centres in the box and in the window, and how far it is to the
  /// last ones; below zero if there are none. With NaN among the corners, some of the window's.
  alignas(64) std::int32_t left[kMost], top[kMost], columns[kMost], rows[kMost];
  alignas(64) std::int32_t pixel[kMost];  ///< number of the first one
  alignas(64) float x[kMost], y[kMost];   ///< of corner 0
  alignas(64) float along[2][kMost], down[2][kMost];
  alignas(64) float inside[kMost], outside[kMost];  ///< bounds; infinite or NaN if nothing is sure
  alignas(64) float z[kMost], rise[2][kMost];  ///< depth of corner 0, and what 1 and 2 add to it
  bool any_small;
  std::size_t other_count;
  alignas(64) std::int32_t others[kMost + 16];  ///< which triangles are medium or large
};

/// What triangles show at pixels that they may cover, and at which of these places they do. Where
/// only exact arithmetic can tell, they are unsure.
struct FragmentList {
  static constexpr std::size_t kMost = 1536;
  static constexpr std::int32_t kMostInRow = 64;  ///< pixels of a row at once
  std::size_t size = 0;  ///< of the arrays in use, where some places mean nothing
  alignas(64) std::int32_t pixel[kMost], triangle[kMost];
  alignas(64) float weights[3][kMost], depth[kMost];
  std::size_t inside_count = 0, unsure_count = 0;
  alignas(64) std::int32_t inside[kMost + 16], unsure[kMost + 16];
};

/// Values at vertices, V x channels, and the triangles that they belong to.
struct Attributes {
  const std::int32_t* triangles;
  const float* values;
  std::size_t channels;
};

/// Bytes of the pixels of a grid that attributes are painted to: times `scale`, above zero, and
/// rounded down; what is outside 0..255, or NaN, as the nearest, or 0.
struct ByteTarget {
  std::uint8_t* data;         ///< pixel 0
  std::ptrdiff_t row_stride;  ///< bytes from one row to the next
  std::int32_t width;         ///< pixels of a row, at least 1
  std::size_t channels;       ///< of a pixel: those of the attributes, or three alike of one
  float scale;
};

/// An image of one to four channels in which int32 counts the bytes, four or more.
struct SampledImage {
  static constexpr int kMostSide = 1 << 24;    ///< float32 has every whole number up to there
  static constexpr int kMostStride = 1 << 16;  ///< of points
  const std::uint8_t* bytes;                   ///< lowest address
  std::int32_t size;                           ///< bytes from there to the end
  std::int32_t origin;                         ///< byte of pixel (0, 0)
  std::int32_t row_stride;                     ///< bytes from one row to the next; may be negative
  std::int32_t height, width, channels;
};

struct Triangle;

/// One build of the loops. All builds come from the same source (loops.inl) without fused
/// multiply-add and without reordering, so they give the same results to the last bit.
struct Loops {
  const char* name;

  /// Adds `modes` rows of `size` values to the sums of each of `faces` faces: sums[f][i] +=
  /// coefficients[f][0] * row 0, then coefficients[f][1] * row 1, ...
  void (*add_rows)(const BasisRows& rows, std::size_t modes, std::size_t size, std::size_t faces,
                   const float* const* coefficients, float* const* sums);

  /// Whether a box (x1, y1, x2, y2, area) overlaps any of `count` boxes, given as one array per
  /// field, by at least `threshold` of their union. `offset` is added to the sides of the overlap.
  bool (*overlaps_any)(const float* const* fields, std::size_t count, const float* box,
                       float threshold, float offset);

  /// A row of three-channel pixels resampled along x: for each of the `count` output pixels,
  /// sixteenths of the sums of weight times pixel of the source pixel at places[i], by the lower
  /// half of weights[i], and of the next one, by the upper half; channel after channel, 3 x count.
  /// May read two bytes behind the second pixel.
  void (*resample_planes)(const std::uint8_t* row, const std::int32_t* places,
                          const std::uint32_t* weights, std::size_t count, std::int16_t* sums);

  /// The first `count` pixels between two rows, as bytes.
  void (*blend_rows)(const RowPair& pair, std::size_t count, std::uint8_t* out);

  /// out[i] = (pixel i between two rows - mean) * scale.
  void (*blend_normalized)(const RowPair& pair, std::size_t count, float mean, float scale,
                           float* out);

  /// Pixels of three channels, interleaved, to three planes: planes[c][i] = (channel c of pixel i -
  /// mean[c]) * scale[c].
  void (*normalize_pixels)(const std::uint8_t* pixels, std::size_t count, const float* mean,
                           const float* scale, float* const* planes);

  /// Pixels of three channels, interleaved, to grey ones: the sums of kGreyWeights times the
  /// channels.
  void (*grey_row)(const std::uint8_t* pixels, std::size_t count, std::int16_t* sums);

  /// out[i] = (such a sum - mean) * scale.
  void (*normalize_grey)(const std::uint8_t* pixels, std::size_t count, float mean, float scale,
                         float* out);

  /// A row of such sums resampled along x, rounded: places and weights as for resample_planes, but
  /// in ascending order. May read kGreyBehind sums from any of the places on.
  void (*resample_grey)(const std::int16_t* row, const std::int32_t* places,
                        const std::uint32_t* weights, std::size_t count, std::int16_t* sums);
  static constexpr std::size_t kGreyBehind = 64;  ///< two registers of them

  /// out[i] = (sum of both weights times sums of two such rows - mean) * scale.
  void (*blend_grey)(const RowPair& pair, std::size_t count, float mean, float scale, float* out);

  /// Red, green and blue; their sum is kGreyOne. Seven bits, so that products of bytes fit 16.
  static constexpr std::uint8_t kGreyWeights[3] = {38, 75, 15};
  static constexpr int kGreyOne = 128;

  /// Adds twice the area vectors of `count` triangles to the sums of their corners: for each vertex
  /// z, x, y and a number without meaning. May read the float behind a vertex.
  void (*scatter_areas)(const float* vertices, const std::int32_t* triangles, std::size_t count,
                        double* sums);

  /// Twice the area vectors of the walks of a block, its pairs and corners, in the same form, each
  /// in its slot; those of `areas` that have no walk stay. May read the float behind a vertex.
  void (*walk_areas)(const float* vertices, const VertexRings::Pair* pairs,
                     const VertexRings::Pair* pairs_end, const std::uint32_t* corners,
                     float* areas);

  /// `count` vectors of that form divided by their length: x, y, z; zero where that is zero.
  /// Coordinates are 0 or between 1e-300 and 1e300 in size. Returns for how many the largest one is
  /// not between kLeast and kMost.
  std::size_t (*unit_vectors)(const double* vectors, std::size_t count, float* out);

  /// The same for floats, which may be wrong where the largest coordinate is not between these two.
  std::size_t (*unit_float_vectors)(const float* vectors, std::size_t count, float* out);
  static constexpr double kLeast = 1e-30, kMost = 1e30;

  /// Brightness of `count` vertices, 0..1, see threedfa/shading.hpp.
  void (*shade)(const float* vertices, const float* normals, std::size_t count,
                const ShadingTerms& terms, float* out);

  /// Lowers low[i % kBoundsLanes] to value i and raises high[...] to it; NaN changes nothing.
  void (*find_bounds)(const float* values, std::size_t count, float* low, float* high);
  static constexpr std::size_t kBoundsLanes = 48;  ///< whole registers and whole vertices

  /// The largest of indices taken as unsigned, which makes negative ones large; 0 of none.
  std::uint32_t (*largest_index)(const std::int32_t* indices, std::size_t count);

  /// Sets up `count` triangles from `first` on.
  void (*set_up_triangles)(const MeshView& mesh, std::size_t first, std::size_t count,
                           const PixelWindow& window, const PixelGrid& grid, TriangleBatch& batch);

  /// Adds the pixels of those of the triangles `first` to `last` - 1 that are small to the list:
  /// up to sixteen places for each triangle, and for those in a register with it.
  void (*cover_small)(const TriangleBatch& batch, std::size_t first, std::size_t last,
                      const PixelGrid& grid, FragmentList& list);

  /// Adds the pixels of `count` triangles to the list, sixteen places for each four columns and
  /// rows of their boxes.
  void (*cover_medium)(const TriangleBatch& batch, const std::int32_t* slots, std::size_t count,
                       const PixelGrid& grid, FragmentList& list);

  /// Adds what a triangle covers of `count` pixels of row `y` from column `left` on, kMostInRow at
  /// most, to the list, in exact arithmetic; takes that many places.
  void (*cover_row)(const Triangle& triangle, std::int32_t number, std::int32_t y,
                    std::int32_t left, std::int32_t count, const PixelGrid& grid,
                    FragmentList& list);

  /// Writes the attributes that `count` places of the list show to their pixels of the image.
  void (*paint_attributes)(const FragmentList& list, const std::int32_t* places, std::size_t count,
                           const Attributes& attributes, float* image);

  /// The same as bytes.
  void (*paint_bytes)(const FragmentList& list, const std::int32_t* places, std::size_t count,
                      const Attributes& attributes, const ByteTarget& target);

  /// Bilinear samples at `count` points, x y first of `stride` floats each, clamped to the image;
  /// a float for each channel. NaN counts as 0.
  void (*sample_points)(const SampledImage& image, const float* points, std::size_t stride,
                        std::size_t count, float* out);
};

/// The plain build, which reads nothing that it does not need.
extern const Loops scalar_loops;

/// The builds that this machine can run, the plain one first and the fastest last.
/// `count` receives their number.
const Loops* const* available(std::size_t& count);

/// The fastest build, or the one that the environment variable THREEDFA_SIMD names (scalar;
/// avx2, avx512; neon): read once, at the first call; a name that is unknown or cannot run is
/// ignored.
const Loops& loops();

}  // namespace threedfa::simd
