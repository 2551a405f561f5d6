#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "threedfa/texture.hpp"

using threedfa::ImageView;
using threedfa::sample_bilinear;
using threedfa::uv_texture;

namespace {

std::vector<float> sampled(const ImageView& image, const std::vector<float>& xy) {
  std::vector<float> out(xy.size() / 2 * static_cast<std::size_t>(image.channels), -1.0f);
  sample_bilinear(image, xy, 2, out);
  return out;
}

/// 2 x 3 pixels, one channel.
const std::vector<std::uint8_t> kSmall{0, 100, 200, 40, 60, 80};
const ImageView kSmallView{kSmall.data(), 2, 3, 1, 3};

/// Two triangles over the whole layout.
const std::vector<float> kSquareUv{0, 0, 1, 0, 1, 1, 0, 1};
const std::vector<std::int32_t> kSquare{0, 1, 2, 0, 2, 3};

}  // namespace

TEST_CASE("texture: samples at and between pixel centres") {
  CHECK(sampled(kSmallView, {0, 0, 1, 0, 2, 0, 0, 1, 2, 1}) ==
        std::vector<float>{0, 100, 200, 40, 80});
  CHECK(sampled(kSmallView, {0.5f, 0, 0.25f, 0, 0, 0.5f, 1.5f, 0.5f}) ==
        std::vector<float>{50, 25, 20, 110});
}

TEST_CASE("texture: points outside take the border's colour") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  CHECK(sampled(kSmallView, {-3, -8, 5, 0, 1, 9, kInfinity, kInfinity, -kInfinity, kInfinity, 3e38f,
                             -3e38f}) == std::vector<float>{0, 200, 60, 80, 40, 200});
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(sampled(kSmallView, {nan, 1})[0] == 40.0f);
}

TEST_CASE("texture: samples read rows by their stride and points by theirs") {
  // Every second row of a 4 x 2 image of 2 channels, upside down.
  const std::vector<std::uint8_t> pixels{1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 7, 8, 0, 0, 0, 0};
  const ImageView flipped{pixels.data() + 8, 2, 2, 2, -8};
  const std::vector<float> points{0, 0, 77, 1, 1, 77};
  std::vector<float> out(4);
  sample_bilinear(flipped, points, 3, out);
  CHECK(out == std::vector<float>{5, 6, 3, 4});
}

TEST_CASE("texture: samples lie between their four neighbours and reproduce a linear image") {
  std::vector<std::uint8_t> pixels(20 * 30);
  for (std::size_t y = 0; y < 20; ++y) {
    for (std::size_t x = 0; x < 30; ++x) {
      pixels[y * 30 + x] = static_cast<std::uint8_t>(3 * x + 5 * y);
    }
  }
  const ImageView image{pixels.data(), 20, 30, 1, 30};
  std::mt19937 random(3);
  std::uniform_real_distribution<float> along_x(0, 29), along_y(0, 19);
  for (int i = 0; i < 500; ++i) {
    const float x = along_x(random), y = along_y(random);
    CHECK(sampled(image, {x, y})[0] == doctest::Approx(3 * x + 5 * y).epsilon(1e-5));
  }
}

TEST_CASE("texture: a layout over the whole square copies the image, v up") {
  constexpr int kSize = 16;
  std::vector<std::uint8_t> pixels(kSize * kSize * 3);
  for (std::size_t y = 0; y < kSize; ++y) {
    for (std::size_t x = 0; x < kSize; ++x) {
      for (std::size_t c = 0; c < 3; ++c) {
        pixels[(y * kSize + x) * 3 + c] = static_cast<std::uint8_t>(4 * x + 8 * y + 16 * c);
      }
    }
  }
  const ImageView image{pixels.data(), kSize, kSize, 3, 3 * kSize};
  // v = 0 is the image's bottom row.
  const std::vector<float> vertices{0, 15, 1, 15, 15, 2, 15, 0, 3, 0, 0, 4};
  std::vector<std::uint8_t> out(pixels.size(), 7);
  uv_texture(image, vertices, kSquareUv, kSquare, kSize, out);
  for (std::size_t i = 0; i < out.size(); ++i) {
    CHECK(std::abs(int(out[i]) - int(pixels[i])) <= 1);
  }
}

TEST_CASE("texture: pixels outside the layout are black, those on its border are not") {
  const std::vector<std::uint8_t> white(4, 255);
  const ImageView image{white.data(), 2, 2, 1, 2};
  const std::vector<float> vertices(12, 0.0f);
  for (const int size : {2, 3, 5, 64, 1000}) {
    const auto side = static_cast<std::size_t>(size);
    std::vector<std::uint8_t> out(side * side, 7);
    uv_texture(image, vertices, kSquareUv, kSquare, size, out);
    CHECK(*std::min_element(out.begin(), out.end()) >= 254);

    // The half above the diagonal from (0, 0) to (1, 1), v up.
    const std::vector<std::int32_t> upper{0, 2, 3};
    uv_texture(image, vertices, kSquareUv, upper, size, out);
    for (std::size_t y = 0; y < side; ++y) {
      for (std::size_t x = 0; x < side; ++x) {
        if (x + y + 1 < side) {
          CHECK(out[y * side + x] >= 254);
        } else if (x + y + 1 > side) {
          CHECK(out[y * side + x] == 0);
        }
      }
    }
  }
}

TEST_CASE("texture: bad input is refused") {
  const std::vector<float> points(4);
  std::vector<float> out(2), small(1);
  CHECK_THROWS_AS(sample_bilinear(ImageView{}, points, 2, out), std::invalid_argument);
  CHECK_THROWS_AS(sample_bilinear(kSmallView, points, 1, out), std::invalid_argument);
  CHECK_THROWS_AS(sample_bilinear(kSmallView, points, 3, out), std::invalid_argument);
  CHECK_THROWS_AS(sample_bilinear(kSmallView, points, 2, small), std::invalid_argument);

  const std::vector<float> vertices(12, 0.0f);
  const auto draw = [&](const std::vector<float>& uv, const std::vector<std::int32_t>& triangles,
                        int size, std::size_t out_size) {
    std::vector<std::uint8_t> texture(out_size);
    uv_texture(kSmallView, vertices, uv, triangles, size, texture);
  };
  CHECK_NOTHROW(draw(kSquareUv, kSquare, 4, 16));
  CHECK_NOTHROW(draw(kSquareUv, kSquare, 1, 1));
  CHECK_THROWS_AS(draw(points, kSquare, 4, 16), std::invalid_argument);
  CHECK_THROWS_AS(draw(kSquareUv, kSquare, 4, 15), std::invalid_argument);
  CHECK_THROWS_AS(draw(kSquareUv, kSquare, 0, 0), std::invalid_argument);
  CHECK_THROWS_AS(draw(kSquareUv, {0, 1, 4}, 4, 16), std::invalid_argument);
}
