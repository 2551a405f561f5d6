#include "threedfa/crop.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "channels.hpp"
#include "row_stride.hpp"
#include "simd/loops.hpp"

namespace threedfa {
namespace {

/// Largest side of an image and largest coordinate of a region: float32 has every whole number of
/// this range, and products of two sides and a few channels stay far from overflow.
constexpr int kMaxSide = 1 << 23;

constexpr int kWeightOne = 2048;  // 11-bit weights, as OpenCV's INTER_RESIZE_COEF_SCALE

/// A region whose corners are whole pixels; may reach beyond the image.
struct PixelRegion {
  int x = 0, y = 0, width = 0, height = 0;
};

void require_sides(const char* name, int height, int width) {
  if (height >= 1 && width >= 1 && height <= kMaxSide && width <= kMaxSide) return;
  require(false, name, "height and width in 1.." + std::to_string(kMaxSide), height, " x ", width);
}

void validate(const ImageView& image) {
  require(image.data != nullptr, "image", "pixels", "a null pointer");
  require_sides("image", image.height, image.width);
  require(image.channels == 1 || image.channels == 3 || image.channels == 4, "image",
          "1, 3 or 4 channels", image.channels);
  require_row_stride("image.row_stride", image.height,
                     static_cast<std::ptrdiff_t>(image.width) * image.channels, image.row_stride);
}

void validate_output(int height, int width, int channels, std::size_t size) {
  require_sides("output", height, width);
  const std::uint64_t expected = static_cast<std::uint64_t>(height) *
                                 static_cast<std::uint64_t>(width) *
                                 static_cast<std::uint64_t>(channels);
  if (size == expected) return;
  require(false, "out", std::to_string(expected) + " elements", size);
}

void validate_normalized(const ImageView& image, float mean, float scale) {
  require(image.channels == 3, "image", "3 channels; convert it first", image.channels);
  require(std::isfinite(mean) && std::isfinite(scale), "normalization", "finite mean and scale",
          mean, " and ", scale);
}

void validate_normalized(const ImageView& image, const Normalization& normalization) {
  for (std::size_t c = 0; c < 3; ++c) {
    validate_normalized(image, normalization.mean[c], normalization.scale[c]);
  }
}

/// Rounds the corners half to even and checks that some of the region lies in the image.
PixelRegion pixel_region(const Roi& roi, const ImageView& image) {
  const auto refuse = [&roi](const std::string& expected) {
    require(false, "roi", expected, roi.x1, " ", roi.y1, " ", roi.x2, " ", roi.y2);
  };
  for (const double corner : {roi.x1, roi.y1, roi.x2, roi.y2}) {
    if (!(std::abs(corner) <= kMaxSide)) {  // also of NaN
      refuse("finite corners within " + std::to_string(kMaxSide) + " pixels of the image's origin");
    }
  }
  const int x1 = static_cast<int>(std::nearbyint(roi.x1));
  const int y1 = static_cast<int>(std::nearbyint(roi.y1));
  const int x2 = static_cast<int>(std::nearbyint(roi.x2));
  const int y2 = static_cast<int>(std::nearbyint(roi.y2));
  if (!(x2 > x1 && y2 > y1)) {
    refuse("x1 y1 x2 y2 at least one pixel wide and high after rounding; drop smaller faces");
  }
  if (!(x1 < image.width && y1 < image.height && x2 > 0 && y2 > 0)) {
    refuse("a region that overlaps the image of height x width " + std::to_string(image.height) +
           " x " + std::to_string(image.width) + "; drop boxes outside it");
  }
  return {x1, y1, x2 - x1, y2 - y1};
}

/// The two source pixels of each output pixel along one axis: where they are, in steps of the
/// caller's choice, and their 11-bit weights. A pixel outside the image has weight 0 and some place
/// inside, so that black needs no test where pixels are read.
struct Taps {
  std::vector<std::int32_t> places[2];
  std::vector<std::int32_t> weights[2];
};

/// Bilinear taps of `size` pixels from `start` on, resampled to `out_size`, in an image of `limit`
/// pixels that are `step` apart. Beyond the outer pixel centres both taps are the border pixel.
/// (OpenCV gives one of them all the weight in x: the same up to the rounding of weights, which
/// matters, by one grey level, only for a single column enlarged more than 5000 times.)
Taps make_taps(int start, int size, int out_size, int limit, int step) {
  Taps taps;
  for (int k = 0; k < 2; ++k) {
    taps.places[k].resize(static_cast<std::size_t>(out_size));
    taps.weights[k].resize(static_cast<std::size_t>(out_size));
  }
  const double factor = static_cast<double>(size) / out_size;
  for (int d = 0; d < out_size; ++d) {
    const float position = static_cast<float>((d + 0.5) * factor - 0.5);
    const int index = static_cast<int>(std::floor(position));
    const float fraction = position - static_cast<float>(index);
    const float weights[2] = {1 - fraction, fraction};
    for (int k = 0; k < 2; ++k) {
      const int pixel = start + std::clamp(index + k, 0, size - 1);
      if (pixel >= 0 && pixel < limit) {
        taps.places[k][static_cast<std::size_t>(d)] = pixel * step;
        taps.weights[k][static_cast<std::size_t>(d)] =
            static_cast<int>(std::nearbyint(weights[k] * kWeightOne));
      }
    }
  }
  return taps;
}

/// Taps along a row as one place, in pixels, and the weights of the pixel there and of the next
/// one: w0 + (w1 << 16). The sums of weight times pixel are the same.
struct PairedTaps {
  std::vector<std::int32_t> places;
  std::vector<std::uint32_t> weights;
};

PairedTaps paired(const Taps& taps, int limit) {
  PairedTaps pairs;
  pairs.places.reserve(taps.places[0].size());
  pairs.weights.reserve(taps.places[0].size());
  for (std::size_t i = 0; i < taps.places[0].size(); ++i) {
    const int first = taps.places[0][i], second = taps.places[1][i];
    const int seen = taps.weights[0][i] != 0 ? first : second;
    const int place = std::min(seen, std::max(limit - 2, 0));
    constexpr std::uint32_t kHere = 1, kNext = 1 << 16;
    const std::uint32_t weights =
        static_cast<std::uint32_t>(taps.weights[0][i]) * (first == place ? kHere : kNext) +
        static_cast<std::uint32_t>(taps.weights[1][i]) * (second == place ? kHere : kNext);
    pairs.places.push_back(place);
    pairs.weights.push_back(weights);
  }
  return pairs;
}

/// One source row resampled along x: width x channels sums of weight times pixel, in sixteenths.
template <class Channels>
void resample_row(const std::uint8_t* row, Channels channels, const Taps& columns,
                  std::int16_t* out) {
  for (std::size_t i = 0; i < columns.places[0].size(); ++i) {
    const std::uint8_t* first = row + columns.places[0][i];
    const std::uint8_t* second = row + columns.places[1][i];
    for (int c = 0; c < channels; ++c) {
      const int sum = columns.weights[0][i] * first[c] + columns.weights[1][i] * second[c];
      *out++ = static_cast<std::int16_t>(sum >> 4);
    }
  }
}

const std::uint8_t* row_of(const ImageView& image, int y) {
  return image.data + y * image.row_stride;
}

/// Whether resampling would change nothing.
bool is_copy(const ImageView& image, const PixelRegion& region, int height, int width) {
  return region.x >= 0 && region.y >= 0 && region.x + region.width <= image.width &&
         region.y + region.height <= image.height && region.width == width &&
         region.height == height;
}

/// Calls `work(y, count)` for each row of a copy of some of the image and its number of pixels;
/// rows without gaps between them are one long row.
template <class Work>
void for_copied_rows(const ImageView& image, int height, int width, Work work) {
  const auto row_size = static_cast<std::size_t>(width);
  if (image.row_stride == std::ptrdiff_t{width} * image.channels) {
    return work(0, row_size * static_cast<std::size_t>(height));
  }
  for (int y = 0; y < height; ++y) work(y, row_size);
}

/// Calls `blend(y, pair)` for each of the `height` output rows, made of two source rows resampled
/// along x; they are valid during the call. `resample_columns(y, sums)` resamples source row y to
/// width x channels sums.
template <class ResampleColumns, class Blend>
void resample(const ImageView& image, const PixelRegion& region, int height, int width,
              ResampleColumns resample_columns, Blend blend) {
  const Taps rows = make_taps(region.y, region.height, height, image.height, 1);

  // Neighbouring output rows of an enlarged image share source rows, so the last two are kept.
  const std::size_t count =
      static_cast<std::size_t>(width) * static_cast<std::size_t>(image.channels);
  std::vector<std::int16_t> buffers[2] = {std::vector<std::int16_t>(count),
                                          std::vector<std::int16_t>(count)};
  int buffered[2] = {-1, -1};
  for (int y = 0; y < height; ++y) {
    const auto at = static_cast<std::size_t>(y);
    if (buffered[1] == rows.places[0][at]) {
      std::swap(buffers[0], buffers[1]);
      std::swap(buffered[0], buffered[1]);
    }
    for (int k = 0; k < 2; ++k) {
      if (buffered[k] == rows.places[k][at]) continue;
      buffered[k] = rows.places[k][at];
      resample_columns(buffered[k], buffers[k].data());
    }
    simd::RowPair pair;
    pair.top = buffers[0].data();
    pair.bottom = buffers[1].data();
    pair.top_weight = rows.weights[0][at];
    pair.bottom_weight = rows.weights[1][at];
    pair.halved = region.width == 2 * width && region.height == 2 * height;
    blend(y, pair);
  }
}

/// The region as normalised planes. Rows are resampled into planes at once, so that all that
/// follows runs over neighbouring numbers.
void resample_normalized(const ImageView& image, const PixelRegion& region, int height, int width,
                         const Normalization& normalization, float* out) {
  const std::size_t row_size = static_cast<std::size_t>(width);
  const std::size_t plane_size = row_size * static_cast<std::size_t>(height);
  const simd::Loops& loops = simd::loops();
  // In the order of the picture's channels.
  float mean[3], scale[3], *planes[3];
  for (std::size_t c = 0; c < 3; ++c) {
    const std::size_t from = normalization.reverse_channels ? 2 - c : c;
    mean[from] = normalization.mean[c];
    scale[from] = normalization.scale[c];
    planes[from] = out + c * plane_size;
  }
  const auto rows_at = [&](int y) {
    const std::size_t first = static_cast<std::size_t>(y) * row_size;
    return std::array<float*, 3>{planes[0] + first, planes[1] + first, planes[2] + first};
  };
  if (is_copy(image, region, height, width)) {
    for_copied_rows(image, height, width, [&](int y, std::size_t count) {
      loops.normalize_pixels(row_of(image, region.y + y) + region.x * 3, count, mean, scale,
                             rows_at(y).data());
    });
    return;
  }
  const PairedTaps taps =
      paired(make_taps(region.x, region.width, width, image.width, 1), image.width);
  const auto resample_columns = [&](int y, std::int16_t* sums) {
    // Two pixels are read as eight bytes: two too many for the last ones in memory.
    const bool last_in_memory = y == (image.row_stride < 0 ? 0 : image.height - 1);
    const auto resample_planes = last_in_memory || image.width == 1
                                     ? simd::scalar_loops.resample_planes
                                     : loops.resample_planes;
    resample_planes(row_of(image, y), taps.places.data(), taps.weights.data(), row_size, sums);
  };
  resample(image, region, height, width, resample_columns, [&](int y, simd::RowPair pair) {
    for (std::size_t c = 0; c < 3; ++c) {
      loops.blend_normalized(pair, row_size, mean[c], scale[c], rows_at(y)[c]);
      pair.top += row_size;
      pair.bottom += row_size;
    }
  });
}

}  // namespace

void crop_resize(const ImageView& image, const Roi& roi, int height, int width,
                 Span<std::uint8_t> out) {
  validate(image);
  validate_output(height, width, image.channels, out.size());
  const PixelRegion region = pixel_region(roi, image);
  const std::size_t row_bytes =
      static_cast<std::size_t>(width) * static_cast<std::size_t>(image.channels);
  const auto row_at = [&](int y) { return out.data() + static_cast<std::size_t>(y) * row_bytes; };
  if (is_copy(image, region, height, width)) {
    for (int y = 0; y < height; ++y) {
      std::copy_n(row_of(image, region.y + y) + region.x * image.channels, row_bytes, row_at(y));
    }
    return;
  }
  const Taps columns = make_taps(region.x, region.width, width, image.width, image.channels);
  resample(
      image, region, height, width,
      [&](int y, std::int16_t* sums) {
        with_channels(image.channels, [&](auto channels) {
          resample_row(row_of(image, y), channels, columns, sums);
        });
      },
      [&](int y, const simd::RowPair& pair) {
        simd::loops().blend_rows(pair, row_bytes, row_at(y));
      });
}

void crop_resize_normalize(const ImageView& image, const Roi& roi, int height, int width,
                           const Normalization& normalization, Span<float> out) {
  validate(image);
  validate_normalized(image, normalization);
  validate_output(height, width, 3, out.size());
  resample_normalized(image, pixel_region(roi, image), height, width, normalization, out.data());
}

void resize_normalize(const ImageView& image, int height, int width,
                      const Normalization& normalization, Span<float> out) {
  validate(image);
  validate_normalized(image, normalization);
  validate_output(height, width, 3, out.size());
  resample_normalized(image, {0, 0, image.width, image.height}, height, width, normalization,
                      out.data());
}

void resize_normalize_grey(const ImageView& image, int height, int width, float mean, float scale,
                           Span<float> out) {
  validate(image);
  validate_normalized(image, mean, scale);
  require(std::isfinite(mean * kWeightOne * simd::Loops::kGreyOne), "normalization",
          "a mean below 1e33 in size", mean);
  validate_output(height, width, 1, out.size());
  const simd::Loops& loops = simd::loops();
  const auto row_size = static_cast<std::size_t>(width);
  const auto source_size = static_cast<std::size_t>(image.width);
  // The loops' grey values are kGreyOne times as large.
  mean *= simd::Loops::kGreyOne;
  scale /= simd::Loops::kGreyOne;
  const PixelRegion whole{0, 0, image.width, image.height};
  if (is_copy(image, whole, height, width)) {
    for_copied_rows(image, height, width, [&](int y, std::size_t count) {
      loops.normalize_grey(row_of(image, y), count, mean, scale,
                           out.data() + static_cast<std::size_t>(y) * row_size);
    });
    return;
  }
  const PairedTaps taps = paired(make_taps(0, image.width, width, image.width, 1), image.width);
  // Grey first: then there is one channel to resample instead of three.
  std::vector<std::int16_t> grey(source_size + simd::Loops::kGreyBehind);
  resample(
      image, whole, height, width,
      [&](int y, std::int16_t* sums) {
        if (width == image.width) return loops.grey_row(row_of(image, y), source_size, sums);
        loops.grey_row(row_of(image, y), source_size, grey.data());
        loops.resample_grey(grey.data(), taps.places.data(), taps.weights.data(), row_size, sums);
      },
      [&](int y, const simd::RowPair& pair) {
        loops.blend_grey(pair, row_size, mean * kWeightOne, scale / kWeightOne,
                         out.data() + static_cast<std::size_t>(y) * row_size);
      });
}

}  // namespace threedfa
