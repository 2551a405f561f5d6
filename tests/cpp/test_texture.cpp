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
using threedfa::texture_map;
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

/// The four corners of a square that looks at the viewer, in the order of kSquareUv.
std::vector<float> sheet(float left, float top, float right, float bottom, float z) {
  return {left, bottom, z, right, bottom, z, right, top, z, left, top, z};
}

std::vector<float> repeated(std::vector<float> normal, std::size_t count) {
  std::vector<float> out;
  for (std::size_t i = 0; i < count; ++i) out.insert(out.end(), normal.begin(), normal.end());
  return out;
}

struct Map {
  std::vector<std::uint8_t> colors;
  std::vector<float> visibility;
};

Map mapped(const ImageView& image, const std::vector<float>& points,
           const std::vector<float>& normals, const std::vector<float>& uv,
           const std::vector<std::int32_t>& triangles, int size) {
  const std::size_t texels = static_cast<std::size_t>(size) * static_cast<std::size_t>(size);
  Map map{std::vector<std::uint8_t>(texels * static_cast<std::size_t>(image.channels), 7),
          std::vector<float>(texels, 7.0f)};
  texture_map(image, points, normals, points, uv, triangles, size, map.colors, map.visibility);
  return map;
}

const std::vector<float> kFront = repeated({0, 0, 1}, 4);

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
  ImageView flat = kSmallView;  // all rows in one place
  flat.row_stride = 0;
  CHECK_THROWS_AS(sample_bilinear(flat, points, 2, out), std::invalid_argument);
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
  CHECK_THROWS_WITH(draw(kSquareUv, kSquare, 32769, 0),
                    "size: expected at most 1073741824 pixels in all, got 32769 x 32769");
  CHECK_THROWS_AS(draw(kSquareUv, {0, 1, 4}, 4, 16), std::invalid_argument);
}

TEST_CASE("texture map: a sheet over the whole picture is the picture, texel by pixel") {
  constexpr int kSize = 150;  // more than one strip of rows
  std::mt19937 random(5);
  std::vector<std::uint8_t> pixels(kSize * kSize * 3);
  std::generate(pixels.begin(), pixels.end(), [&] { return static_cast<std::uint8_t>(random()); });
  const ImageView image{pixels.data(), kSize, kSize, 3, 3 * kSize};
  const float edge = kSize - 0.5f;  // of the last pixel
  const Map map =
      mapped(image, sheet(-0.5f, -0.5f, edge, edge, 3), kFront, kSquareUv, kSquare, kSize);
  for (std::size_t i = 0; i < pixels.size(); ++i) {
    CHECK(std::abs(int(map.colors[i]) - int(pixels[i])) <= 1);  // of positions, rounded to float
  }
  CHECK(std::count(map.visibility.begin(), map.visibility.end(), 1.0f) == kSize * kSize);
}

TEST_CASE("texture map: texels larger than pixels take their mean") {
  constexpr int kSize = 96;
  std::vector<std::uint8_t> board(kSize * kSize);
  for (std::size_t i = 0; i < board.size(); ++i) {
    board[i] = (i / kSize + i % kSize) % 2 ? 200 : 100;
  }
  const ImageView image{board.data(), kSize, kSize, 1, kSize};
  const float edge = kSize - 0.5f;
  const auto points = sheet(-0.5f, -0.5f, edge, edge, 0);
  for (const int size : {48, 16, 7, 1}) {
    const Map map = mapped(image, points, kFront, kSquareUv, kSquare, size);
    for (const std::uint8_t value : map.colors) CHECK(std::abs(int(value) - 150) <= 3);
  }
}

TEST_CASE("texture map: texels smaller than pixels lie between them") {
  const Map map = mapped(kSmallView, sheet(0, 0, 2, 1, 0), kFront, kSquareUv, kSquare, 4);
  std::vector<float> places;
  for (float row = 0.5f; row < 4; ++row) {
    for (float column = 0.5f; column < 4; ++column) {
      places.insert(places.end(), {column / 2, row / 4});
    }
  }
  const std::vector<float> expected = sampled(kSmallView, places);
  for (std::size_t i = 0; i < 16; ++i) {
    CHECK(std::abs(float(map.colors[i]) - expected[i]) <= 0.51f);
  }
}

TEST_CASE(
    "texture map: visibility is the cosine, zero for what is hidden, outside or turned away") {
  const std::vector<std::uint8_t> white(40 * 40, 255);
  const ImageView image{white.data(), 40, 40, 1, 40};
  // The left half of the layout lies at z = 0; the right half above it, over its right part.
  std::vector<float> points = sheet(0, 0, 20, 20, 0);
  const auto above = sheet(10, 0, 30, 20, 5);
  points.insert(points.end(), above.begin(), above.end());
  const std::vector<float> uv{0, 0, 0.5f, 0, 0.5f, 1, 0, 1, 0.5f, 0, 1, 0, 1, 1, 0.5f, 1};
  const std::vector<std::int32_t> triangles{0, 1, 2, 0, 2, 3, 4, 5, 6, 4, 6, 7};
  const Map map = mapped(image, points, repeated({0, 1.2f, 1.6f}, 8), uv, triangles, 40);
  for (std::size_t i = 0; i < 1600; ++i) {
    const std::size_t column = i % 40;
    if (column >= 10 && column < 20) {
      CHECK(map.visibility[i] == 0.0f);  // beneath the other
    } else {
      CHECK(map.visibility[i] == doctest::Approx(0.8));  // normals of any length
    }
    CHECK(map.colors[i] == 255);  // what the picture shows there, seen or not
  }

  const auto all_hidden = [&](const std::vector<float>& corners,
                              const std::vector<float>& normals) {
    const Map hidden = mapped(image, corners, normals, kSquareUv, kSquare, 8);
    return std::count(hidden.visibility.begin(), hidden.visibility.end(), 0.0f) == 64;
  };
  CHECK_FALSE(all_hidden(sheet(0, 0, 20, 20, 0), kFront));
  CHECK(all_hidden(sheet(0, 0, 20, 20, 0), repeated({0, 0.6f, -0.8f}, 4)));
  CHECK(all_hidden(sheet(0, 0, 20, 20, 0), repeated({0, 0, 0}, 4)));
  CHECK(all_hidden(sheet(50, 50, 60, 60, 0), kFront));
  CHECK(all_hidden(sheet(-9, -9, -1, -1, 0), kFront));
  const std::vector<float> edge_on{5, 5, 0, 9, 5, 0, 9, 5, 4, 5, 5, 4};
  CHECK(all_hidden(edge_on, kFront));
}

TEST_CASE("texture map: a slanted sheet does not hide itself") {
  const std::vector<std::uint8_t> white(16, 255);
  const ImageView image{white.data(), 4, 4, 1, 4};
  for (const float steepness : {0.0f, 1.0f, 20.0f, -20.0f}) {
    std::vector<float> points = sheet(0, 0, 3, 3, 0);
    for (std::size_t i = 0; i < 4; ++i) points[3 * i + 2] = steepness * points[3 * i];
    const Map map = mapped(image, points, kFront, kSquareUv, kSquare, 64);
    CHECK(std::count(map.visibility.begin(), map.visibility.end(), 1.0f) == 64 * 64);
  }
}

TEST_CASE("texture map: outside the layout it is black, and the first triangle wins") {
  const std::vector<std::uint8_t> grey(16, 90);
  const ImageView image{grey.data(), 4, 4, 1, 4};
  std::vector<float> normals = kFront;
  normals[11] = -1;  // of the vertex that only the second triangle has
  const std::vector<float> uv{0, 0, 1, 0, 0, 1, 0, 1};
  const Map map = mapped(image, sheet(0, 0, 3, 3, 0), normals, uv, {0, 1, 2, 0, 1, 3}, 32);
  for (std::size_t i = 0; i < 1024; ++i) {
    if (i % 32 == i / 32) continue;  // on the edge
    const bool inside = i % 32 < i / 32;
    CHECK(map.colors[i] == (inside ? 90 : 0));
    CHECK(map.visibility[i] == (inside ? 1.0f : -1.0f));
  }
}

TEST_CASE("texture map: several meshes at once are looked up as each is alone") {
  // The second is so large in the picture that each texel takes many samples.
  const std::vector<std::vector<float>> points{{0, 0, 0, 3, 0, 1, 3, 2, 0, 0, 2, 0},
                                               {-400, 0, 0, 400, 0, 0, 400, 90, 5, -400, 90, 0}};
  const std::vector<std::vector<float>> normals{kFront, repeated({0.6f, 0, 0.8f}, 4)};
  constexpr int kSize = 70;  // more than one strip
  constexpr std::ptrdiff_t kTexels = kSize * kSize;
  std::vector<float> all_points = points[0], all_normals = normals[0];
  all_points.insert(all_points.end(), points[1].begin(), points[1].end());
  all_normals.insert(all_normals.end(), normals[1].begin(), normals[1].end());
  std::vector<std::uint8_t> colors(2 * kTexels), alone(kTexels);
  std::vector<float> visibility(2 * kTexels), alone_visibility(kTexels);
  texture_map(kSmallView, all_points, all_normals, points[0], kSquareUv, kSquare, kSize, colors,
              visibility);
  for (std::size_t k = 0; k < 2; ++k) {
    texture_map(kSmallView, points[k], normals[k], points[0], kSquareUv, kSquare, kSize, alone,
                alone_visibility);
    const std::ptrdiff_t begin = static_cast<std::ptrdiff_t>(k) * kTexels;
    CHECK(std::equal(alone.begin(), alone.end(), colors.begin() + begin));
    CHECK(std::equal(alone_visibility.begin(), alone_visibility.end(), visibility.begin() + begin));
    CHECK(alone.front() != alone.back());
  }
  CHECK_FALSE(std::equal(alone.begin(), alone.end(), colors.begin()));
}

TEST_CASE("texture map: huge and degenerate numbers are survived") {
  const float most = std::numeric_limits<float>::max();
  const std::vector<float> wild{-most, 0, most, most, most, 0, 0, -most, -most, 1, 1, 1e-40f};
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const auto& uv : {kSquareUv, std::vector<float>{0, 0, 1e-38f, 0, 0, 1, most, -most},
                         std::vector<float>{0, 0, nan, 0, 0, 1, most, most}}) {
    const Map map = mapped(kSmallView, wild, repeated({0, 1e-30f, most}, 4), uv, kSquare, 9);
    for (const float value : map.visibility) CHECK((value == -1 || (value >= 0 && value <= 1)));
  }
  CHECK(mapped(kSmallView, {}, {}, {}, {}, 3).visibility == std::vector<float>(9, -1.0f));
}

TEST_CASE("texture map: bad input is refused") {
  const std::vector<float> points(12), normals(12);
  const auto draw = [&](const std::vector<float>& where, const std::vector<float>& uv,
                        const std::vector<std::int32_t>& triangles, int size, std::size_t texels) {
    std::vector<std::uint8_t> colors(texels);
    std::vector<float> visibility(texels);
    texture_map(kSmallView, where, normals, points, uv, triangles, size, colors, visibility);
  };
  CHECK_NOTHROW(draw(points, kSquareUv, kSquare, 4, 16));
  CHECK_THROWS_AS(draw(kSquareUv, kSquareUv, kSquare, 4, 16), std::invalid_argument);
  CHECK_THROWS_AS(draw(points, points, kSquare, 4, 16), std::invalid_argument);
  CHECK_THROWS_AS(draw(points, kSquareUv, {0, 1, 4}, 4, 16), std::invalid_argument);
  CHECK_THROWS_AS(draw(points, kSquareUv, kSquare, 4, 15), std::invalid_argument);
  CHECK_THROWS_AS(draw(points, kSquareUv, kSquare, 0, 0), std::invalid_argument);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> broken = points;
    broken[4] = bad;
    CHECK_THROWS_AS(draw(broken, kSquareUv, kSquare, 4, 16), std::invalid_argument);
    std::vector<std::uint8_t> colors(16);
    std::vector<float> visibility(16);
    CHECK_THROWS_AS(
        texture_map(kSmallView, points, normals, broken, kSquareUv, kSquare, 4, colors, visibility),
        std::invalid_argument);
  }
}
