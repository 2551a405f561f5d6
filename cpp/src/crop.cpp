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

/// The two source pixels of an output pixel along one axis. A pixel outside the image has weight 0
/// and some index inside, so that black needs no test where pixels are read.
struct Tap {
  int index[2];
  int weight[2];
};

/// Bilinear taps of `size` pixels from `start` on, resampled to `out_size`, in an image of `limit`
/// pixels. Beyond the outer pixel centres both taps are the border pixel. (OpenCV gives one of them
/// all the weight in x: the same up to the rounding of weights, which matters, by one grey
/// level, only for a single column enlarged more than 5000 times.)
std::vector<Tap> make_taps(int start, int size, int out_size, int limit) {
  std::vector<Tap> taps;
  taps.reserve(static_cast<std::size_t>(out_size));
  const double factor = static_cast<double>(size) / out_size;
  for (int d = 0; d < out_size; ++d) {
    const float position = static_cast<float>((d + 0.5) * factor - 0.5);
    const int index = static_cast<int>(std::floor(position));
    const float fraction = position - static_cast<float>(index);
    const float weights[2] = {1 - fraction, fraction};
    Tap tap{};
    for (int k = 0; k < 2; ++k) {
      const int pixel = start + std::clamp(index + k, 0, size - 1);
      if (pixel >= 0 && pixel < limit) {
        tap.index[k] = pixel;
        tap.weight[k] = static_cast<int>(std::nearbyint(weights[k] * kWeightOne));
      }
    }
    taps.push_back(tap);
  }
  return taps;
}

/// One source row resampled along x: width x channels sums of weight times pixel.
template <int kChannels>
void resample_row(const std::uint8_t* row, const std::vector<Tap>& columns, std::int32_t* out) {
  for (const Tap& tap : columns) {
    const std::uint8_t* first = row + tap.index[0] * kChannels;
    const std::uint8_t* second = row + tap.index[1] * kChannels;
    for (int c = 0; c < kChannels; ++c) {
      *out++ = tap.weight[0] * first[c] + tap.weight[1] * second[c];
    }
  }
}

void resample_row(const std::uint8_t* row, int channels, const std::vector<Tap>& columns,
                  std::int32_t* out) {
  switch (channels) {
    case 1:
      return resample_row<1>(row, columns, out);
    case 3:
      return resample_row<3>(row, columns, out);
    default:
      return resample_row<4>(row, columns, out);
  }
}

/// Two resampled rows to 8 bits. The shifts are OpenCV's: they keep every product in 32 bits; the
/// result is at most 255, also where rounding makes a pair of weights add up to 2049.
void blend_rows(const std::int32_t* top, const std::int32_t* bottom, const Tap& tap,
                std::size_t count, std::uint8_t* out) {
  simd::loops().blend_rows(top, bottom, tap.weight[0], tap.weight[1], count, out);
}

/// The same for a factor of exactly 2, where all weights are 1024 (0 outside the image): the mean
/// of four pixels, rounded once. The sum is below 2^31.
void average_rows(const std::int32_t* top, const std::int32_t* bottom, const Tap& tap,
                  std::size_t count, std::uint8_t* out) {
  for (std::size_t i = 0; i < count; ++i) {
    const std::int32_t sum = tap.weight[0] * top[i] + tap.weight[1] * bottom[i];
    out[i] = static_cast<std::uint8_t>((sum + (1 << 21)) >> 22);
  }
}

const std::uint8_t* row_of(const ImageView& image, int y) {
  return image.data + y * image.row_stride;
}

/// Calls `consume(y, row)` with each of the `height` output rows, `width` x channels bytes that
/// are valid during the call.
template <class Consume>
void resample(const ImageView& image, const PixelRegion& region, int height, int width,
              Consume consume) {
  const bool inside = region.x >= 0 && region.y >= 0 && region.x + region.width <= image.width &&
                      region.y + region.height <= image.height;
  if (inside && region.width == width && region.height == height) {
    for (int y = 0; y < height; ++y) {
      consume(y, row_of(image, region.y + y) + region.x * image.channels);
    }
    return;
  }

  const bool halve = region.width == 2 * width && region.height == 2 * height;
  const std::vector<Tap> columns = make_taps(region.x, region.width, width, image.width);
  const std::vector<Tap> rows = make_taps(region.y, region.height, height, image.height);

  // Neighbouring output rows of an enlarged image share source rows, so the last two are kept.
  const std::size_t count =
      static_cast<std::size_t>(width) * static_cast<std::size_t>(image.channels);
  std::vector<std::int32_t> buffers[2] = {std::vector<std::int32_t>(count),
                                          std::vector<std::int32_t>(count)};
  int buffered[2] = {-1, -1};
  std::vector<std::uint8_t> out(count);
  for (int y = 0; y < height; ++y) {
    const Tap& tap = rows[static_cast<std::size_t>(y)];
    if (buffered[1] == tap.index[0]) {
      std::swap(buffers[0], buffers[1]);
      std::swap(buffered[0], buffered[1]);
    }
    for (int k = 0; k < 2; ++k) {
      if (buffered[k] == tap.index[k]) continue;
      resample_row(row_of(image, tap.index[k]), image.channels, columns, buffers[k].data());
      buffered[k] = tap.index[k];
    }
    (halve ? average_rows : blend_rows)(buffers[0].data(), buffers[1].data(), tap, count,
                                        out.data());
    consume(y, out.data());
  }
}

void resample_normalized(const ImageView& image, const PixelRegion& region, int height, int width,
                         const Normalization& normalization, float* out) {
  const std::size_t row_size = static_cast<std::size_t>(width);
  const std::size_t plane_size = row_size * static_cast<std::size_t>(height);
  const simd::Loops& loops = simd::loops();
  resample(image, region, height, width, [&](int y, const std::uint8_t* pixels) {
    for (std::size_t c = 0; c < 3; ++c) {
      const std::size_t from = normalization.reverse_channels ? 2 - c : c;
      loops.normalize_channel(pixels + from, row_size, normalization.mean[c],
                              normalization.scale[c],
                              out + c * plane_size + static_cast<std::size_t>(y) * row_size);
    }
  });
}

}  // namespace

void crop_resize(const ImageView& image, const Roi& roi, int height, int width,
                 Span<std::uint8_t> out) {
  validate(image);
  validate_output(height, width, image.channels, out.size());
  const std::size_t row_bytes =
      static_cast<std::size_t>(width) * static_cast<std::size_t>(image.channels);
  resample(image, pixel_region(roi, image), height, width, [&](int y, const std::uint8_t* pixels) {
    std::copy_n(pixels, row_bytes, out.data() + static_cast<std::size_t>(y) * row_bytes);
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

}  // namespace threedfa
