#include "threedfa/crop.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

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

std::string size_text(int height, int width) {
  return std::to_string(height) + " x " + std::to_string(width);
}

void validate(const ImageView& image) {
  require(image.data != nullptr, "image", "pixels", "a null pointer");
  require(
      image.height >= 1 && image.width >= 1 && image.height <= kMaxSide && image.width <= kMaxSide,
      "image", "height and width in 1.." + std::to_string(kMaxSide),
      size_text(image.height, image.width));
  require(image.channels == 1 || image.channels == 3 || image.channels == 4, "image",
          "1, 3 or 4 channels", std::to_string(image.channels));
  const std::ptrdiff_t row_bytes = static_cast<std::ptrdiff_t>(image.width) * image.channels;
  require(image.height == 1 || std::abs(image.row_stride) >= row_bytes, "image.row_stride",
          "at least " + std::to_string(row_bytes) + " bytes", std::to_string(image.row_stride));
}

void validate_output(int height, int width, int channels, std::size_t size) {
  require(height >= 1 && width >= 1 && height <= kMaxSide && width <= kMaxSide, "output",
          "height and width in 1.." + std::to_string(kMaxSide), size_text(height, width));
  const std::uint64_t expected = static_cast<std::uint64_t>(height) *
                                 static_cast<std::uint64_t>(width) *
                                 static_cast<std::uint64_t>(channels);
  require(size == expected, "out", std::to_string(expected) + " elements", std::to_string(size));
}

void validate_normalized(const ImageView& image, const Normalization& normalization) {
  require(image.channels == 3, "image", "3 channels; convert it first",
          std::to_string(image.channels));
  for (std::size_t c = 0; c < 3; ++c) {
    require(
        std::isfinite(normalization.mean[c]) && std::isfinite(normalization.scale[c]),
        "normalization", "finite mean and scale",
        std::to_string(normalization.mean[c]) + " and " + std::to_string(normalization.scale[c]));
  }
}

/// Rounds the corners half to even and checks that some of the region lies in the image.
PixelRegion pixel_region(const Roi& roi, const ImageView& image) {
  const std::string text = std::to_string(roi.x1) + " " + std::to_string(roi.y1) + " " +
                           std::to_string(roi.x2) + " " + std::to_string(roi.y2);
  for (const double corner : {roi.x1, roi.y1, roi.x2, roi.y2}) {
    require(std::abs(corner) <= kMaxSide, "roi",  // false for NaN
            "finite corners within " + std::to_string(kMaxSide) + " pixels of the image's origin",
            text);
  }
  const int x1 = static_cast<int>(std::nearbyint(roi.x1));
  const int y1 = static_cast<int>(std::nearbyint(roi.y1));
  const int x2 = static_cast<int>(std::nearbyint(roi.x2));
  const int y2 = static_cast<int>(std::nearbyint(roi.y2));
  require(x2 > x1 && y2 > y1, "roi",
          "x1 y1 x2 y2 at least one pixel wide and high after rounding; drop smaller faces", text);
  require(x1 < image.width && y1 < image.height && x2 > 0 && y2 > 0, "roi",
          "a region that overlaps the image of height x width " +
              size_text(image.height, image.width) + "; drop boxes outside it",
          text);
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

/// One source row resampled along x: width x channels sums of weight times pixel.
template <int kChannels>
void resample_row(const std::uint8_t* row, const Taps& columns, std::int32_t* out) {
  for (std::size_t i = 0; i < columns.places[0].size(); ++i) {
    const std::uint8_t* first = row + columns.places[0][i];
    const std::uint8_t* second = row + columns.places[1][i];
    for (int c = 0; c < kChannels; ++c) {
      *out++ = columns.weights[0][i] * first[c] + columns.weights[1][i] * second[c];
    }
  }
}

void resample_row(const std::uint8_t* row, int channels, const Taps& columns, std::int32_t* out) {
  switch (channels) {
    case 1:
      return resample_row<1>(row, columns, out);
    case 3:
      return resample_row<3>(row, columns, out);
    default:
      return resample_row<4>(row, columns, out);
  }
}

/// Two resampled rows, weighted, to 8 bits. The shifts are OpenCV's: they keep every product in 32
/// bits; the result is at most 255, also where rounding makes a pair of weights add up to 2049.
void blend_rows(const std::int32_t* top, const std::int32_t* bottom, const std::int32_t* weights,
                std::size_t count, std::uint8_t* out) {
  simd::loops().blend_rows(top, bottom, weights[0], weights[1], count, out);
}

/// The same for a factor of exactly 2, where all weights are 1024 (0 outside the image): the mean
/// of four pixels, rounded once. The sum is below 2^31.
void average_rows(const std::int32_t* top, const std::int32_t* bottom, const std::int32_t* weights,
                  std::size_t count, std::uint8_t* out) {
  for (std::size_t i = 0; i < count; ++i) {
    const std::int32_t sum = weights[0] * top[i] + weights[1] * bottom[i];
    out[i] = static_cast<std::uint8_t>((sum + (1 << 21)) >> 22);
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

/// Calls `consume(y, row)` with each of the `height` output rows, width x channels bytes that are
/// valid during the call. `resample_columns(y, columns, sums)` resamples source row y along x and
/// says in which order the bytes are.
template <class ResampleColumns, class Consume>
void resample(const ImageView& image, const PixelRegion& region, int height, int width,
              ResampleColumns resample_columns, Consume consume) {
  const bool halve = region.width == 2 * width && region.height == 2 * height;
  const Taps columns = make_taps(region.x, region.width, width, image.width, image.channels);
  const Taps rows = make_taps(region.y, region.height, height, image.height, 1);

  // Neighbouring output rows of an enlarged image share source rows, so the last two are kept.
  const std::size_t count =
      static_cast<std::size_t>(width) * static_cast<std::size_t>(image.channels);
  std::vector<std::int32_t> buffers[2] = {std::vector<std::int32_t>(count),
                                          std::vector<std::int32_t>(count)};
  int buffered[2] = {-1, -1};
  std::vector<std::uint8_t> out(count);
  for (int y = 0; y < height; ++y) {
    const auto at = static_cast<std::size_t>(y);
    const std::int32_t weights[2] = {rows.weights[0][at], rows.weights[1][at]};
    if (buffered[1] == rows.places[0][at]) {
      std::swap(buffers[0], buffers[1]);
      std::swap(buffered[0], buffered[1]);
    }
    for (int k = 0; k < 2; ++k) {
      if (buffered[k] == rows.places[k][at]) continue;
      buffered[k] = rows.places[k][at];
      resample_columns(buffered[k], columns, buffers[k].data());
    }
    (halve ? average_rows : blend_rows)(buffers[0].data(), buffers[1].data(), weights, count,
                                        out.data());
    consume(y, out.data());
  }
}

/// The region as normalised planes. Rows are resampled into planes at once, so that all that
/// follows runs over neighbouring numbers.
void resample_normalized(const ImageView& image, const PixelRegion& region, int height, int width,
                         const Normalization& normalization, float* out) {
  const std::size_t row_size = static_cast<std::size_t>(width);
  const std::size_t plane_size = row_size * static_cast<std::size_t>(height);
  const simd::Loops& loops = simd::loops();
  // Writes output row y from bytes whose channels are `plane` apart and pixels `step`.
  const auto write = [&](int y, const std::uint8_t* pixels, std::size_t plane, std::size_t step) {
    const auto normalize = step == 1 ? loops.normalize : loops.normalize_every_third;
    for (std::size_t c = 0; c < 3; ++c) {
      const std::size_t from = normalization.reverse_channels ? 2 - c : c;
      normalize(pixels + from * plane, row_size, normalization.mean[c], normalization.scale[c],
                out + c * plane_size + static_cast<std::size_t>(y) * row_size);
    }
  };
  if (is_copy(image, region, height, width)) {
    for (int y = 0; y < height; ++y) {
      write(y, row_of(image, region.y + y) + region.x * 3, 1, 3);
    }
    return;
  }
  const auto resample_columns = [&](int y, const Taps& columns, std::int32_t* sums) {
    // Pixels are read four bytes at a time: one too many for the last one in memory.
    const bool last_in_memory = y == (image.row_stride < 0 ? 0 : image.height - 1);
    const auto resample_planes =
        last_in_memory ? simd::scalar_loops.resample_planes : loops.resample_planes;
    resample_planes(row_of(image, y), columns.places[0].data(), columns.places[1].data(),
                    columns.weights[0].data(), columns.weights[1].data(), row_size, sums);
  };
  resample(image, region, height, width, resample_columns,
           [&](int y, const std::uint8_t* planes) { write(y, planes, row_size, 1); });
}

}  // namespace

void crop_resize(const ImageView& image, const Roi& roi, int height, int width,
                 Span<std::uint8_t> out) {
  validate(image);
  validate_output(height, width, image.channels, out.size());
  const PixelRegion region = pixel_region(roi, image);
  const std::size_t row_bytes =
      static_cast<std::size_t>(width) * static_cast<std::size_t>(image.channels);
  const auto write = [&](int y, const std::uint8_t* pixels) {
    std::copy_n(pixels, row_bytes, out.data() + static_cast<std::size_t>(y) * row_bytes);
  };
  if (is_copy(image, region, height, width)) {
    for (int y = 0; y < height; ++y) {
      write(y, row_of(image, region.y + y) + region.x * image.channels);
    }
    return;
  }
  resample(
      image, region, height, width,
      [&](int y, const Taps& columns, std::int32_t* sums) {
        resample_row(row_of(image, y), image.channels, columns, sums);
      },
      write);
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

}  // namespace threedfa
