#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "threedfa/crop.hpp"

using namespace threedfa;
using Bytes = std::vector<std::uint8_t>;

namespace {

/// An image that owns its pixels.
struct Picture {
  int height, width, channels;
  Bytes pixels;

  Picture(int h, int w, int c)
      : height(h),
        width(w),
        channels(c),
        pixels(static_cast<std::size_t>(h) * static_cast<std::size_t>(w * c)) {}

  std::uint8_t& at(int y, int x, int c) {
    return pixels[static_cast<std::size_t>((y * width + x) * channels + c)];
  }
  ImageView view() const { return {pixels.data(), height, width, channels, width * channels}; }
  Roi whole() const { return {0, 0, static_cast<double>(width), static_cast<double>(height)}; }
};

Picture random_picture(std::mt19937& random, int height, int width, int channels) {
  Picture picture(height, width, channels);
  std::uniform_int_distribution<int> grey(0, 255);
  for (std::uint8_t& p : picture.pixels) p = static_cast<std::uint8_t>(grey(random));
  return picture;
}

Bytes crop(const ImageView& image, const Roi& roi, int height, int width) {
  Bytes out(static_cast<std::size_t>(height * width * image.channels), 77);
  crop_resize(image, roi, height, width, out);
  return out;
}

/// The region cut out pixel by pixel, black outside.
Picture cut(Picture& picture, int x1, int y1, int x2, int y2) {
  Picture out(y2 - y1, x2 - x1, picture.channels);
  for (int y = std::max(y1, 0); y < std::min(y2, picture.height); ++y) {
    for (int x = std::max(x1, 0); x < std::min(x2, picture.width); ++x) {
      for (int c = 0; c < picture.channels; ++c) out.at(y - y1, x - x1, c) = picture.at(y, x, c);
    }
  }
  return out;
}

/// Bilinear interpolation in floating point, the borders repeated.
double bilinear(Picture& picture, double y, double x, int c) {
  const auto pixel = [&](double py, double px) {
    return static_cast<double>(
        picture.at(static_cast<int>(std::clamp(py, 0.0, picture.height - 1.0)),
                   static_cast<int>(std::clamp(px, 0.0, picture.width - 1.0)), c));
  };
  const double y0 = std::floor(y), x0 = std::floor(x), fy = y - y0, fx = x - x0;
  return (1 - fy) * ((1 - fx) * pixel(y0, x0) + fx * pixel(y0, x0 + 1)) +
         fy * ((1 - fx) * pixel(y0 + 1, x0) + fx * pixel(y0 + 1, x0 + 1));
}

}  // namespace

TEST_CASE("crop_resize: equals OpenCV's INTER_LINEAR to the bit") {
  // Made with cv2.resize of OpenCV 5.0.0: shrunk by an odd factor, enlarged, one row, one column.
  // The source's bytes are 73 * i modulo 256.
  struct Case {
    int height, width, channels, out_height, out_width;
    Bytes expected;
  };
  const std::vector<Case> cases{
      {9, 7, 1, 3, 5, {218, 116, 218, 64, 166, 215, 113, 215, 61, 163, 212, 110, 212, 58, 160}},
      {3, 4, 3, 4, 5, {0,   73,  146, 153, 47,  120, 200, 145, 90,  171, 244, 61,  145, 218, 35,
                       68,  140, 214, 109, 114, 188, 108, 133, 158, 126, 151, 128, 212, 126, 102,
                       149, 125, 199, 123, 167, 173, 93,  166, 143, 111, 136, 142, 197, 111, 183,
                       216, 33,  106, 190, 186, 80,  160, 233, 50,  131, 204, 97,  105, 178, 251}},
      {1, 6, 1, 2, 4, {18, 128, 173, 91, 18, 128, 173, 91}},
      {5, 1, 4, 3, 2, {12, 85,  158, 231, 12,  85,  158, 231, 72,  145, 218, 35,
                       72, 145, 218, 35,  132, 205, 107, 95,  132, 205, 107, 95}},
  };
  for (const Case& c : cases) {
    Picture picture(c.height, c.width, c.channels);
    for (std::size_t i = 0; i < picture.pixels.size(); ++i) {
      picture.pixels[i] = static_cast<std::uint8_t>(73 * i % 256);
    }
    CHECK(crop(picture.view(), picture.whole(), c.out_height, c.out_width) == c.expected);
  }
}

TEST_CASE("crop_resize: the same size copies, also a part, also beyond the border") {
  std::mt19937 random(9);
  for (const int channels : {1, 3, 4}) {
    Picture picture = random_picture(random, 11, 17, channels);
    CHECK(crop(picture.view(), picture.whole(), 11, 17) == picture.pixels);
    CHECK(crop(picture.view(), {3, 2, 12, 9}, 7, 9) == cut(picture, 3, 2, 12, 9).pixels);
    CHECK(crop(picture.view(), {-3, -2, 20, 30}, 32, 23) == cut(picture, -3, -2, 20, 30).pixels);
    CHECK(crop(picture.view(), {16, 10, 18, 12}, 2, 2) == cut(picture, 16, 10, 18, 12).pixels);
  }
}

TEST_CASE("crop_resize: one pass equals cutting out first") {
  std::mt19937 random(10);
  std::uniform_int_distribution<int> side(1, 60), corner(-40, 40), out_side(1, 70);
  int tried = 0;
  while (tried < 300) {
    const int channels = std::vector<int>{1, 3, 4}[static_cast<std::size_t>(tried % 3)];
    Picture picture = random_picture(random, side(random), side(random), channels);
    const int x1 = corner(random), y1 = corner(random);
    const int height = out_side(random), width = out_side(random);
    const bool halve = tried % 4 == 0;
    const int x2 = x1 + (halve ? 2 * width : side(random));
    const int y2 = y1 + (halve ? 2 * height : side(random));
    if (x2 <= 0 || y2 <= 0 || x1 >= picture.width || y1 >= picture.height) continue;
    const Picture part = cut(picture, x1, y1, x2, y2);
    const Roi roi{static_cast<double>(x1), static_cast<double>(y1), static_cast<double>(x2),
                  static_cast<double>(y2)};
    REQUIRE(crop(picture.view(), roi, height, width) ==
            crop(part.view(), part.whole(), height, width));
    ++tried;
  }
}

TEST_CASE("crop_resize: within one grey level of floating point") {
  std::mt19937 random(11);
  std::uniform_int_distribution<int> side(1, 60);
  for (int round = 0; round < 100; ++round) {
    Picture picture = random_picture(random, side(random), side(random), 3);
    const int height = side(random), width = side(random);
    const Bytes out = crop(picture.view(), picture.whole(), height, width);
    std::size_t i = 0;
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        for (int c = 0; c < 3; ++c) {
          const double expected = bilinear(picture, (y + 0.5) * picture.height / height - 0.5,
                                           (x + 0.5) * picture.width / width - 0.5, c);
          REQUIRE(std::abs(out[i++] - expected) <= 1.0);
        }
      }
    }
  }
}

TEST_CASE("crop_resize: a factor of exactly 2 averages four pixels") {
  std::mt19937 random(12);
  Picture picture = random_picture(random, 14, 22, 3);
  const Bytes out = crop(picture.view(), picture.whole(), 7, 11);
  for (int y = 0; y < 7; ++y) {
    for (int x = 0; x < 11; ++x) {
      for (int c = 0; c < 3; ++c) {
        const int sum = picture.at(2 * y, 2 * x, c) + picture.at(2 * y, 2 * x + 1, c) +
                        picture.at(2 * y + 1, 2 * x, c) + picture.at(2 * y + 1, 2 * x + 1, c);
        REQUIRE(out[static_cast<std::size_t>((y * 11 + x) * 3 + c)] == (sum + 2) >> 2);
      }
    }
  }
}

TEST_CASE("crop_resize: an even picture stays even, white stays white") {
  for (const int grey : {0, 1, 128, 254, 255}) {
    Picture picture(23, 31, 1);
    std::fill(picture.pixels.begin(), picture.pixels.end(), static_cast<std::uint8_t>(grey));
    for (const int side : {1, 5, 23, 64, 120, 333}) {
      const Bytes out = crop(picture.view(), picture.whole(), side, side + 1);
      CHECK(std::all_of(out.begin(), out.end(), [grey](std::uint8_t p) { return p == grey; }));
    }
  }
}

TEST_CASE("crop_resize: corners are rounded half to even") {
  std::mt19937 random(13);
  Picture picture = random_picture(random, 20, 20, 1);
  const auto expected = [&](double x1, double y1, double x2, double y2) {
    return crop(picture.view(), {x1, y1, x2, y2}, 9, 9);
  };
  CHECK(crop(picture.view(), {2.5, 3.5, 11.5, 12.49}, 9, 9) == expected(2, 4, 12, 12));
  CHECK(crop(picture.view(), {-0.5, -1.5, 8.5, 9.51}, 9, 9) == expected(0, -2, 8, 10));
}

TEST_CASE("crop_resize: reads rows at any distance") {
  std::mt19937 random(14);
  Picture picture = random_picture(random, 12, 10, 3);
  Picture upside_down(12, 10, 3);
  for (int y = 0; y < 12; ++y) {
    std::copy_n(&picture.at(y, 0, 0), 30, &upside_down.at(11 - y, 0, 0));
  }
  ImageView view = picture.view();
  view.data += 11 * view.row_stride;
  view.row_stride = -view.row_stride;
  CHECK(crop(view, {-2, 1, 9, 13}, 8, 8) == crop(upside_down.view(), {-2, 1, 9, 13}, 8, 8));

  view = picture.view();  // a window of the picture
  view.data += 3 * view.row_stride + 2 * 3;
  view.height = 6;
  view.width = 5;
  const Picture window = cut(picture, 2, 3, 7, 9);
  CHECK(crop(view, {-1, 0, 5, 7}, 11, 4) == crop(window.view(), {-1, 0, 5, 7}, 11, 4));
}

TEST_CASE("crop_resize: regions far larger than the image cost no more") {
  Picture picture(2, 2, 1);
  std::fill(picture.pixels.begin(), picture.pixels.end(), std::uint8_t{255});
  const double far = 1 << 23;
  const Bytes out = crop(picture.view(), {-far, -far, far, far}, 3, 3);
  CHECK(out == Bytes{0, 0, 0, 0, 64, 0, 0, 0, 0});  // the middle pixel sees 1 of 4 taps
}

TEST_CASE("crop_resize: refuses regions without pixels") {
  Picture picture(50, 70, 3);
  Bytes out(8 * 8 * 3);
  const auto run = [&](const Roi& roi) { crop_resize(picture.view(), roi, 8, 8, out); };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  CHECK_THROWS_WITH_AS(run({-60, -60, -30, -30}),
                       "roi: expected a region that overlaps the image of height x width 50 x 70; "
                       "drop boxes outside it, got -60.000000 -60.000000 -30.000000 -30.000000",
                       std::invalid_argument);
  for (const Roi& roi :
       {Roi{70, 0, 80, 10}, Roi{0, 50, 10, 60}, Roi{-10, 0, 0, 10}, Roi{0, -10, 10, 0.4},
        Roi{10, 10, 10, 10}, Roi{10.4, 10, 10.4, 20}, Roi{10, 20, 20, 10}, Roi{10, 10, 10.4, 10.4},
        Roi{nan, 0, 10, 10}, Roi{0, nan, 10, 10}, Roi{0, 0, nan, 10}, Roi{0, 0, 10, nan},
        Roi{-infinity, 0, 10, 10}, Roi{0, 0, infinity, 10}, Roi{0, 0, 1e10, 1e10},
        Roi{-1e300, -1e300, 1e300, 1e300}}) {
    CAPTURE(roi.x1);
    CAPTURE(roi.x2);
    CHECK_THROWS_AS(run(roi), std::invalid_argument);
  }
}

TEST_CASE("crop_resize: refuses images and outputs that do not fit") {
  Picture picture(5, 5, 3);
  Bytes out(4 * 4 * 3);
  const auto run = [&out](const ImageView& image, int height, int width) {
    crop_resize(image, {0, 0, 5, 5}, height, width, out);
  };
  CHECK_NOTHROW(run(picture.view(), 4, 4));
  CHECK_THROWS_AS(run(picture.view(), 4, 5), std::invalid_argument);
  CHECK_THROWS_AS(run(picture.view(), 0, 4), std::invalid_argument);
  CHECK_THROWS_AS(run(picture.view(), -4, -4), std::invalid_argument);
  CHECK_THROWS_AS(run(picture.view(), std::numeric_limits<int>::max(), 4), std::invalid_argument);
  const auto altered = [&](auto change) {
    ImageView view = picture.view();
    change(view);
    return view;
  };
  CHECK_THROWS_AS(run(altered([](ImageView& v) { v.data = nullptr; }), 4, 4),
                  std::invalid_argument);
  CHECK_THROWS_AS(run(altered([](ImageView& v) { v.channels = 2; }), 4, 4), std::invalid_argument);
  CHECK_THROWS_AS(run(altered([](ImageView& v) { v.height = 0; }), 4, 4), std::invalid_argument);
  CHECK_THROWS_AS(run(altered([](ImageView& v) { v.width = -5; }), 4, 4), std::invalid_argument);
  CHECK_THROWS_AS(run(altered([](ImageView& v) { v.row_stride = 14; }), 4, 4),
                  std::invalid_argument);
}

TEST_CASE("crop_resize_normalize: the bytes of crop_resize, normalised, as planes") {
  std::mt19937 random(15);
  Picture picture = random_picture(random, 40, 30, 3);
  Normalization normalization;
  normalization.mean = {104, 117.5f, 123};
  normalization.scale = {1 / 128.0f, 0.5f, 3};
  for (const bool reverse : {false, true}) {
    normalization.reverse_channels = reverse;
    for (const Roi& roi : {picture.whole(), Roi{-5, -5, 20, 30}, Roi{4, 6, 16, 22}}) {
      const Bytes bytes = crop(picture.view(), roi, 8, 6);
      std::vector<float> planes(3 * 8 * 6);
      crop_resize_normalize(picture.view(), roi, 8, 6, normalization, planes);
      for (std::size_t c = 0; c < 3; ++c) {
        for (std::size_t i = 0; i < 48; ++i) {
          const float pixel = bytes[3 * i + (reverse ? 2 - c : c)];
          REQUIRE(planes[48 * c + i] == (pixel - normalization.mean[c]) * normalization.scale[c]);
        }
      }
    }
  }
}

TEST_CASE("resize_normalize: the whole image") {
  std::mt19937 random(16);
  Picture picture = random_picture(random, 13, 19, 3);
  Normalization normalization;
  normalization.mean = {127.5f, 127.5f, 127.5f};
  normalization.reverse_channels = true;
  for (const int height : {13, 9, 31}) {
    for (const int width : {19, 8, 40}) {
      const std::size_t size = static_cast<std::size_t>(3 * height * width);
      std::vector<float> whole(size), region(size);
      resize_normalize(picture.view(), height, width, normalization, whole);
      crop_resize_normalize(picture.view(), picture.whole(), height, width, normalization, region);
      CHECK(whole == region);
    }
  }
  std::vector<float> same(3 * 13 * 19);
  resize_normalize(picture.view(), 13, 19, normalization, same);
  CHECK(same[0] == picture.at(0, 0, 2) - 127.5f);
  CHECK(same.back() == picture.at(12, 18, 0) - 127.5f);
}

TEST_CASE("resize_normalize_grey: weighted channels of the resized picture, but for its rounding") {
  std::mt19937 random(17);
  for (const int columns : {21, 1, 70}) {
    Picture picture = random_picture(random, 13, columns, 3);
    for (const auto& [height, width] : {std::pair{13, columns}, {9, 8}, {26, 42}, {1, 100}}) {
      const Bytes bytes = crop(picture.view(), picture.whole(), height, width);
      std::vector<float> grey(static_cast<std::size_t>(height * width));
      resize_normalize_grey(picture.view(), height, width, 127.5f, 1 / 128.0f, grey);
      for (std::size_t i = 0; i < grey.size(); ++i) {
        const int sum = 38 * bytes[3 * i] + 75 * bytes[3 * i + 1] + 15 * bytes[3 * i + 2];
        const float expected = (static_cast<float>(sum) / 128 - 127.5f) / 128;
        const bool copied = height == 13 && width == columns;
        REQUIRE(std::abs(grey[i] - expected) <= (copied ? 0.0f : 1.0f / 128));
      }
    }
  }
}

TEST_CASE("normalising refuses other than 3 channels, wrong sizes, values that are not finite") {
  Picture colour(6, 6, 3), grey(6, 6, 1), rgba(6, 6, 4);
  std::vector<float> out(3 * 4 * 4);
  CHECK_THROWS_AS(resize_normalize(grey.view(), 4, 4, {}, out), std::invalid_argument);
  CHECK_THROWS_AS(resize_normalize(rgba.view(), 4, 4, {}, out), std::invalid_argument);
  CHECK_THROWS_AS(resize_normalize(colour.view(), 4, 3, {}, out), std::invalid_argument);
  CHECK_THROWS_AS(crop_resize_normalize(grey.view(), grey.whole(), 4, 4, {}, out),
                  std::invalid_argument);
  CHECK_THROWS_AS(crop_resize_normalize(colour.view(), {6, 6, 9, 9}, 4, 4, {}, out),
                  std::invalid_argument);
  Normalization broken;
  broken.scale[1] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_AS(resize_normalize(colour.view(), 4, 4, broken, out), std::invalid_argument);
  CHECK_THROWS_AS(resize_normalize_grey(colour.view(), 4, 4, 0, 1, out), std::invalid_argument);
  out.resize(16);
  CHECK_THROWS_AS(resize_normalize_grey(grey.view(), 4, 4, 0, 1, out), std::invalid_argument);
  CHECK_THROWS_AS(resize_normalize_grey(colour.view(), 4, 4, 0, broken.scale[1], out),
                  std::invalid_argument);
  CHECK_THROWS_AS(resize_normalize_grey(colour.view(), 4, 4, 1e37f, 1, out), std::invalid_argument);
}
