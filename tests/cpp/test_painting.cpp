#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "threedfa/painting.hpp"
#include "threedfa/rasterizer.hpp"

using namespace threedfa;

namespace {

struct Picture {
  int height, width;
  std::vector<std::uint8_t> bytes;

  Picture(int height_in, int width_in)
      : height(height_in),
        width(width_in),
        bytes(static_cast<std::size_t>(3 * height_in * width_in), 77) {}

  Canvas canvas() { return {bytes.data(), height, width, std::ptrdiff_t{3} * width}; }
};

void paint(Picture& picture, const std::vector<float>& vertices,
           const std::vector<std::int32_t>& triangles, const std::vector<float>& colors) {
  PaintWorkspace workspace;
  paint_mesh(picture.canvas(), vertices, triangles, colors, workspace);
}

}  // namespace

TEST_CASE("painting: equals the rasterizer's whole picture, wherever the mesh lies") {
  std::mt19937 random(3);
  PaintWorkspace workspace;  // which must not keep anything
  for (int round = 0; round < 200; ++round) {
    const int height = 1 + static_cast<int>(random() % 40),
              width = 1 + static_cast<int>(random() % 40);
    const std::size_t count = 3 + random() % 20, channels = round % 2 == 0 ? 1 : 3;
    const int reach = round % 3 == 0 ? 400 : 60;
    const auto coordinate = [&] {
      return static_cast<float>(static_cast<int>(random() % static_cast<unsigned>(reach)) - 20) /
             4.0f;
    };
    std::vector<float> vertices, colors;
    for (std::size_t i = 0; i < 3 * count; ++i) vertices.push_back(coordinate());
    for (std::size_t i = 0; i < channels * count; ++i) {
      colors.push_back(static_cast<float>(random() % 150) / 100.0f - 0.2f);
    }
    std::vector<std::int32_t> triangles;
    for (int i = 0; i < 30; ++i) triangles.push_back(static_cast<std::int32_t>(random() % count));

    const std::size_t pixels = static_cast<std::size_t>(height * width);
    std::vector<float> depth(pixels), image(channels * pixels);
    RasterBuffers buffers;
    buffers.height = height;
    buffers.width = width;
    buffers.depth = depth.data();
    buffers.image = image.data();
    clear(buffers);
    rasterize(vertices, triangles, colors, static_cast<int>(channels), buffers);
    Picture found(height, width), expected(height, width);
    for (std::size_t i = 0; i < pixels; ++i) {
      if (depth[i] < -1e30f) continue;
      for (std::size_t c = 0; c < 3; ++c) {
        const float value = image[channels * i + c % channels] * 255.0f;
        expected.bytes[3 * i + c] =
            static_cast<std::uint8_t>(value < 0 ? 0 : (value > 255 ? 255 : value));
      }
    }
    paint_mesh(found.canvas(), vertices, triangles, colors, workspace);
    REQUIRE(found.bytes == expected.bytes);

    // Rows further apart, and the last one first in memory.
    const std::ptrdiff_t row = std::ptrdiff_t{3} * width, stride = row + round % 5;
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(stride * height), 77);
    for (const bool flipped : {false, true}) {
      std::fill(bytes.begin(), bytes.end(), std::uint8_t{77});
      std::uint8_t* const first = bytes.data() + (flipped ? stride * (height - 1) : 0);
      paint_mesh({first, height, width, flipped ? -stride : stride}, vertices, triangles, colors,
                 workspace);
      bool same = true;
      for (std::ptrdiff_t y = 0; y < height; ++y) {
        const std::uint8_t* const place = first + (flipped ? -y : y) * stride;
        same = same && std::equal(place, place + row, expected.bytes.begin() + y * row);
        same =
            same && std::all_of(place + row, place + stride, [](int byte) { return byte == 77; });
      }
      REQUIRE(same);
    }
  }
}

TEST_CASE("painting: bad input is refused and leaves the canvas alone") {
  Picture picture(4, 4);
  const std::vector<std::uint8_t> before = picture.bytes;
  const std::vector<float> vertices{0, 0, 1, 9, 0, 1, 0, 9, 1};
  CHECK_THROWS_AS(paint(picture, vertices, {0, 1, 3}, {1, 1, 1}), std::invalid_argument);
  CHECK_THROWS_AS(paint(picture, vertices, {0, 1, 2}, {1, 1}), std::invalid_argument);
  CHECK_THROWS_AS(paint(picture, vertices, {0, 1}, {1, 1, 1}), std::invalid_argument);
  CHECK_THROWS_AS(paint(picture, {}, {0, 0, 0}, {}), std::invalid_argument);
  PaintWorkspace workspace;
  const std::vector<std::int32_t> triangles{0, 1, 2};
  const std::vector<float> greys(3, 1.0f);
  CHECK_THROWS_AS(paint_mesh(Canvas{}, vertices, triangles, greys, workspace),
                  std::invalid_argument);
  for (const Canvas canvas :
       {Canvas{picture.bytes.data(), 4, 4, 11},
        Canvas{picture.bytes.data(), 1, std::numeric_limits<int>::max(), 0}}) {
    CHECK_THROWS_AS(paint_mesh(canvas, vertices, triangles, greys, workspace),
                    std::invalid_argument);
  }
  CHECK(picture.bytes == before);
  paint(picture, {}, {}, {});
  CHECK(picture.bytes == before);
  paint(picture, vertices, {0, 1, 2}, {1, 1, 1});
  CHECK(picture.bytes == std::vector<std::uint8_t>(48, 255));
}
