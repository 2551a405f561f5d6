#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#include "threedfa/rasterizer.hpp"

using threedfa::clear;
using threedfa::RasterBuffers;
using threedfa::rasterize;
using threedfa::Span;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Picture {
  int height, width;
  std::vector<float> depth;
  std::vector<std::int32_t> triangle;
  std::vector<float> barycentric;

  Picture(int height_in, int width_in)
      : height(height_in),
        width(width_in),
        depth(pixels()),
        triangle(pixels()),
        barycentric(3 * pixels()) {
    clear(buffers());
  }

  std::size_t pixels() const {
    return static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
  }
  std::size_t pixel(int x, int y) const {
    return static_cast<std::size_t>(y) * static_cast<std::size_t>(width) +
           static_cast<std::size_t>(x);
  }
  RasterBuffers buffers() {
    RasterBuffers b;
    b.height = height;
    b.width = width;
    b.depth = depth.data();
    b.triangle = triangle.data();
    b.barycentric = barycentric.data();
    return b;
  }
  bool drawn(int x, int y) const { return triangle[pixel(x, y)] >= 0; }
};

using Vertices = std::vector<float>;
using Triangles = std::vector<std::int32_t>;

void draw(const Vertices& vertices, const Triangles& triangles, const RasterBuffers& buffers,
          const std::vector<float>& attributes = {}, int channels = 0) {
  rasterize(vertices, triangles, attributes, channels, buffers);
}

Picture drawn(const Vertices& vertices, const Triangles& triangles, int height, int width) {
  Picture picture(height, width);
  draw(vertices, triangles, picture.buffers());
  return picture;
}

/// How many triangles draw each pixel: each is drawn alone.
std::vector<int> coverage(const Vertices& vertices, const Triangles& triangles, int height,
                          int width) {
  Picture picture(height, width);
  std::vector<int> count(picture.pixels(), 0);
  for (std::size_t t = 0; t < triangles.size(); t += 3) {
    clear(picture.buffers());
    rasterize(vertices, Span<const std::int32_t>(&triangles[t], 3), Span<const float>{}, 0,
              picture.buffers());
    for (std::size_t i = 0; i < count.size(); ++i) {
      count[i] += picture.triangle[i] == 0;
    }
  }
  return count;
}

/// A grid of cells, each cut along a random diagonal in a random winding, over [0, size] in x and
/// y. `place` moves the inner vertices; by less than a quarter of a cell, so that nothing folds
/// over.
template <class Place>
void random_grid(std::mt19937& random, int cells, Place place, Vertices& vertices,
                 Triangles& triangles) {
  for (int row = 0; row <= cells; ++row) {
    for (int column = 0; column <= cells; ++column) {
      const std::array<float, 2> at = place(column, row, column % cells == 0, row % cells == 0);
      vertices.insert(vertices.end(), {at[0], at[1], static_cast<float>(random() % 100)});
    }
  }
  const auto add = [&](int a, int b, int c) {
    if (random() % 2 == 0) {
      std::swap(b, c);
    }
    triangles.insert(triangles.end(), {a, b, c});
  };
  for (int row = 0; row < cells; ++row) {
    for (int column = 0; column < cells; ++column) {
      const int a = row * (cells + 1) + column, b = a + 1, c = a + cells + 1, d = c + 1;
      if (random() % 2 == 0) {
        add(a, b, c);
        add(b, d, c);
      } else {
        add(a, b, d);
        add(a, d, c);
      }
    }
  }
}

/// A soup of triangles with coordinates on a grid of 1/16 pixel.
void random_soup(std::mt19937& random, int count, int size, Vertices& vertices,
                 Triangles& triangles) {
  for (int i = 0; i < 3 * count; ++i) {
    for (int axis = 0; axis < 2; ++axis) {
      vertices.push_back(static_cast<float>(static_cast<int>(random() % (32 * size)) - 8 * size) /
                         16.0f);
    }
    vertices.push_back(static_cast<float>(random() % 1000) / 8.0f);
    triangles.push_back(i);
  }
}

/// Whether `part` is what the whole picture has from column `left` and row `top` on.
void check_part(const Picture& part, const Picture& whole, int left, int top) {
  for (int y = 0; y < part.height; ++y) {
    for (int x = 0; x < part.width; ++x) {
      const std::size_t i = part.pixel(x, y), j = whole.pixel(left + x, top + y);
      CHECK(part.triangle[i] == whole.triangle[j]);
      CHECK(part.depth[i] == whole.depth[j]);
      for (std::size_t k = 0; k < 3; ++k) {
        CHECK(part.barycentric[3 * i + k] == whole.barycentric[3 * j + k]);
      }
    }
  }
}

/// Draws all at once and one after the other.
void check_as_alone(const Vertices& vertices, const Triangles& triangles, int size) {
  const Picture together = drawn(vertices, triangles, size, size);
  Picture expected(size, size);
  for (std::size_t t = 0; t < triangles.size(); t += 3) {
    const Picture one =
        drawn(vertices, {triangles[t], triangles[t + 1], triangles[t + 2]}, size, size);
    for (std::size_t i = 0; i < one.pixels(); ++i) {
      if (!(one.depth[i] > expected.depth[i])) continue;
      expected.depth[i] = one.depth[i];
      expected.triangle[i] = static_cast<std::int32_t>(t / 3);
      std::copy_n(&one.barycentric[3 * i], 3, &expected.barycentric[3 * i]);
    }
  }
  CHECK(together.triangle == expected.triangle);
  CHECK(together.depth == expected.depth);
  CHECK(together.barycentric == expected.barycentric);
}

}  // namespace

TEST_CASE("rasterizer: a right triangle covers its left and top edges, not the diagonal") {
  const Picture p = drawn({0, 0, 1, 4, 0, 1, 0, 4, 1}, {0, 1, 2}, 6, 6);
  for (int y = 0; y < 6; ++y) {
    for (int x = 0; x < 6; ++x) {
      CHECK(p.drawn(x, y) == (x + y < 4));
    }
  }
  const Picture q = drawn({4, 0, 1, 4, 4, 1, 0, 4, 1}, {0, 1, 2}, 6, 6);
  for (int y = 0; y < 6; ++y) {
    for (int x = 0; x < 6; ++x) {
      CHECK(q.drawn(x, y) == (x + y >= 4 && x < 4 && y < 4));
    }
  }
}

TEST_CASE("rasterizer: clear writes the empty values") {
  Picture p(2, 3);
  std::fill(p.depth.begin(), p.depth.end(), 5.0f);
  clear(p.buffers());
  CHECK(p.depth == std::vector<float>(6, -kInfinity));
  CHECK(p.triangle == std::vector<std::int32_t>(6, -1));
  CHECK(p.barycentric == std::vector<float>(18, 0.0f));
}

TEST_CASE("rasterizer: the nearest triangle wins, the earlier one of equals") {
  const Vertices vertices{0, 0, 1, 9, 0, 1, 0, 9, 1, 0, 0, 2, 9, 0, 2, 0, 9, 2};
  CHECK(drawn(vertices, {0, 1, 2, 3, 4, 5}, 4, 4).triangle == std::vector<std::int32_t>(16, 1));
  CHECK(drawn(vertices, {3, 4, 5, 0, 1, 2}, 4, 4).triangle == std::vector<std::int32_t>(16, 0));
  CHECK(drawn(vertices, {0, 1, 2, 0, 1, 2}, 4, 4).triangle == std::vector<std::int32_t>(16, 0));
}

TEST_CASE("rasterizer: what is in the buffers stays where it is nearer") {
  Picture p(4, 4);
  p.depth[p.pixel(1, 1)] = 10.0f;
  draw({0, 0, 1, 9, 0, 1, 0, 9, 1}, {0, 1, 2}, p.buffers());
  CHECK_FALSE(p.drawn(1, 1));
  CHECK(p.depth[p.pixel(1, 1)] == 10.0f);
  CHECK(p.drawn(2, 1));
}

TEST_CASE("rasterizer: what is in the buffers stays where it is as near") {
  std::mt19937 random(12);
  for (const int size : {8, 40}) {
    Vertices vertices;
    Triangles triangles;
    random_soup(random, 200, size, vertices, triangles);
    for (std::size_t k = 2; k < vertices.size(); k += 3) vertices[k] = 1.0f;
    const Picture before = drawn(vertices, triangles, size, size);
    Picture after = before;
    std::reverse(triangles.begin(), triangles.end());
    draw(vertices, triangles, after.buffers());
    CHECK(after.triangle == before.triangle);
    CHECK(after.barycentric == before.barycentric);
  }
}

TEST_CASE("rasterizer: a triangulated square covers every pixel exactly once") {
  std::mt19937 random(1);
  for (int round = 0; round < 60; ++round) {
    constexpr int kCells = 6;
    constexpr int kSide = 24;
    constexpr float kCell = float(kSide) / kCells;
    const int kind = round % 3;
    std::uniform_real_distribution<float> jitter(-0.24f, 0.24f);
    const auto place = [&](int column, int row, bool rim_x, bool rim_y) -> std::array<float, 2> {
      float x = static_cast<float>(column) * kCell, y = static_cast<float>(row) * kCell;
      const auto moved = [&](float value) {
        if (kind == 0) {  // whole pixels: edges and corners through many centres
          return value + static_cast<float>(static_cast<int>(random() % 3) - 1);
        }
        if (kind == 1) {  // half pixels
          return value + static_cast<float>(static_cast<int>(random() % 5) - 2) / 2.0f;
        }
        return value + kCell * jitter(random);
      };
      return {rim_x ? x : moved(x), rim_y ? y : moved(y)};
    };
    Vertices vertices;
    Triangles triangles;
    random_grid(random, kCells, place, vertices, triangles);
    const std::vector<int> count = coverage(vertices, triangles, kSide + 2, kSide + 2);
    for (int y = 0; y < kSide + 2; ++y) {
      for (int x = 0; x < kSide + 2; ++x) {
        const int expected = x < kSide && y < kSide;
        CHECK(count[static_cast<std::size_t>(y * (kSide + 2) + x)] == expected);
      }
    }
  }
}

TEST_CASE("rasterizer: a fan around a pixel's centre draws it once") {
  std::mt19937 random(2);
  std::uniform_real_distribution<float> radius(0.6f, 9.0f);
  for (int round = 0; round < 200; ++round) {
    const int spokes = 3 + static_cast<int>(random() % 9);
    Vertices vertices{10, 10, 0};
    Triangles triangles;
    for (int i = 0; i < spokes; ++i) {
      const double angle =
          2 * 3.14159265358979 * i / spokes + 0.1 * static_cast<double>(random() % 4);
      const float r = radius(random);
      vertices.insert(vertices.end(), {10 + r * static_cast<float>(std::cos(angle)),
                                       10 + r * static_cast<float>(std::sin(angle)), 0});
      triangles.insert(triangles.end(), {0, 1 + i, 1 + (i + 1) % spokes});
    }
    const std::vector<int> count = coverage(vertices, triangles, 21, 21);
    CHECK(count[10 * 21 + 10] == 1);
    CHECK(*std::max_element(count.begin(), count.end()) == 1);
  }
}

TEST_CASE("rasterizer: coordinates far beyond the picture leave no gap") {
  // Four triangles around a point of the picture, out to huge corners, are longer than any row.
  std::mt19937 random(3);
  std::uniform_real_distribution<float> inside(0.0f, 40.0f);
  for (int round = 0; round < 100; ++round) {
    const float far = std::ldexp(1.0f, 7 + static_cast<int>(random() % 110));
    const Vertices vertices{
        inside(random), inside(random), 0, -far, -far, 0, far, -far, 0, far, far, 0, -far, far, 0};
    const Triangles triangles{0, 1, 2, 0, 2, 3, 0, 3, 4, 0, 4, 1};
    const std::vector<int> count = coverage(vertices, triangles, 40, 40);
    CHECK(std::count(count.begin(), count.end(), 1) == 1600);
  }
}

TEST_CASE("rasterizer: agrees with a plain test of every pixel") {
  std::mt19937 random(4);
  for (int round = 0; round < 200; ++round) {
    const int size = round % 2 == 0 ? 12 : 64;
    Vertices v;
    Triangles triangles;
    random_soup(random, 1, size, v, triangles);
    const Picture p = drawn(v, triangles, size, size);
    // Coordinates are multiples of 1/16, so this is exact.
    const auto edge = [&](std::size_t a, std::size_t b, double x, double y) {
      return (double(v[b]) - v[a]) * (y - v[a + 1]) - (double(v[b + 1]) - v[a + 1]) * (x - v[a]);
    };
    const double area = edge(0, 3, v[6], v[7]);
    const double side = area > 0 ? 1 : -1;
    for (int y = 0; y < size; ++y) {
      for (int x = 0; x < size; ++x) {
        bool inside = area != 0;
        const std::size_t corner[4] = {0, 3, 6, 0};
        for (int k = 0; k < 3; ++k) {
          const std::size_t a = corner[k], b = corner[k + 1];
          const double value = side * edge(a, b, x, y);
          const double to_right = side * (double(v[a + 1]) - v[b + 1]);
          const double to_below = side * (double(v[b]) - v[a]);
          const bool top_left = to_right > 0 || (to_right == 0 && to_below > 0);
          inside = inside && (value > 0 || (value == 0 && top_left));
        }
        CHECK(p.drawn(x, y) == inside);
      }
    }
  }
}

TEST_CASE("rasterizer: a soup looks as if each triangle were drawn alone, one after the other") {
  std::mt19937 random(11);
  for (int round = 0; round < 60; ++round) {
    const int size = 20 + round;
    Vertices vertices;
    Triangles triangles;
    random_soup(random, 150, size, vertices, triangles);
    if (round % 4 != 1) {  // small ones, in every fourth round between others
      for (std::size_t k = 0; k < vertices.size(); k += round % 4 == 3 ? 18 : 9) {
        for (std::size_t i = 3; i < 9; ++i) {
          vertices[k + i] = vertices[k + i % 3] + static_cast<float>(random() % 64) / 16.0f;
        }
      }
    }
    // Ties, in every third round nothing else.
    for (std::size_t k = 2; k < vertices.size(); k += 3) {
      vertices[k] = round % 3 == 0 ? 1.0f : float(random() % 3);
    }
    check_as_alone(vertices, triangles, size);
  }
}

TEST_CASE("rasterizer: a list as full as it can get looks no different") {
  std::mt19937 random(13);
  for (int round = 0; round < 120; ++round) {
    Vertices vertices;
    Triangles triangles;
    // In a box of so many pixels. Of what is infinitely far away no pixel is sure; each takes a
    // place and is not drawn.
    const auto add = [&](int width, int height, bool far) {
      const float x = static_cast<float>(random() % 40) + 0.75f;
      const float y = static_cast<float>(random() % 40) + 0.75f;
      const float z = far ? -kInfinity : static_cast<float>(random() % 3);
      vertices.insert(vertices.end(), {x, y, z, x + static_cast<float>(width) - 0.5f, y, z, x,
                                       y + static_cast<float>(height) - 0.5f, z});
      for (int k = 0; k < 3; ++k) triangles.push_back(static_cast<std::int32_t>(triangles.size()));
    };
    // Two large triangles at the head of each batch take as many places as they have pixels; then
    // all are small, or one of middle size is among so many.
    const int every = round % 3 == 0 ? 1000 : 2 + static_cast<int>(random() % 62);
    const int width = round % 2 == 0 ? 16 : 5 + static_cast<int>(random() % 12);
    const int height = round % 2 == 0 ? 16 : 5 + static_cast<int>(random() % 12);
    for (int i = 0; i < 192; ++i) {
      if (i % 64 < 2) {
        add(30, 20 + static_cast<int>(random() % 20), false);
      } else if (i % every == every - 1) {
        add(width, height, random() % 8 != 0);
      } else {
        add(4, 4, random() % 8 != 0);
      }
    }
    check_as_alone(vertices, triangles, 64);
  }
}

TEST_CASE("rasterizer: of three equals of different sizes the first stays") {
  Vertices vertices;
  for (const float size : {3.0f, 9.0f, 3.0f}) {
    const float z = vertices.empty() ? 0.0f : 1.0f;  // the first one is behind
    vertices.insert(vertices.end(), {0, 0, z, size, 0, z, 0, size, z});
  }
  CHECK(drawn(vertices, {0, 1, 2, 3, 4, 5, 6, 7, 8}, 9, 9).triangle[10] == 1);
}

TEST_CASE("rasterizer: depth and weights of slivers agree") {
  std::mt19937 random(3);
  std::size_t count = 0;
  for (int round = 0; round < 3000; ++round) {
    const auto at = static_cast<float>(random() % 20), size = static_cast<float>(1 + random() % 11);
    const float width = std::ldexp(1.0f, -4 - static_cast<int>(random() % 19));
    const Vertices vertices{
        at, at, 1, at + size, at + size + width, 2, at + size / 2, at + size / 2 - width, 3};
    const Picture picture = drawn(vertices, {0, 1, 2}, 32, 32);
    for (std::size_t i = 0; i < picture.pixels(); ++i) {
      if (picture.triangle[i] < 0) continue;
      ++count;
      const float* const w = &picture.barycentric[3 * i];
      CHECK(std::abs(w[0] + 2 * w[1] + 3 * w[2] - picture.depth[i]) < 1e-5f);
    }
  }
  CHECK(count > 1000);
}

TEST_CASE("rasterizer: a window has the bits of the whole picture, whatever the triangles' size") {
  std::mt19937 random(4);
  for (int round = 0; round < 60; ++round) {
    Vertices vertices;
    Triangles triangles;
    random_soup(random, 60, 12, vertices, triangles);
    // Pixels' centres on edges, or coordinates that are no binary fractions, of all sizes.
    const float size = std::ldexp(1.0f, round % 6 - 4);
    for (std::size_t i = 0; i < vertices.size(); ++i) {
      if (i % 3 == 2) continue;
      if (round % 2 == 0) {
        vertices[i] = std::round(vertices[i]) + 9;
      } else {
        const float corner = vertices[i / 9 * 9 + i % 3];
        vertices[i] =
            i % 9 < 3 ? corner / 0.7f + 9 : corner + size * std::remainder(vertices[i], 9.0f);
      }
    }
    const Picture whole = drawn(vertices, triangles, 40, 40);
    Picture part(13, 17);
    RasterBuffers buffers = part.buffers();
    buffers.left = 6;
    buffers.top = 11;
    draw(vertices, triangles, buffers);
    check_part(part, whole, 6, 11);
  }
}

TEST_CASE("rasterizer: the order of triangles does not matter where depths differ") {
  std::mt19937 random(5);
  for (int round = 0; round < 20; ++round) {
    Vertices vertices;
    Triangles triangles;
    random_soup(random, 40, 24, vertices, triangles);
    std::vector<std::int32_t> order(40);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    Triangles shuffled;
    for (const std::int32_t t : order) {
      for (std::int32_t k = 0; k < 3; ++k) {
        shuffled.push_back(triangles[static_cast<std::size_t>(3 * t + k)]);
      }
    }
    const Picture a = drawn(vertices, triangles, 24, 24);
    const Picture b = drawn(vertices, shuffled, 24, 24);
    CHECK(a.depth == b.depth);
    for (std::size_t i = 0; i < a.pixels(); ++i) {
      if (b.triangle[i] >= 0 && order[static_cast<std::size_t>(b.triangle[i])] != a.triangle[i]) {
        CHECK(a.depth[i] == b.depth[i]);  // a tie
      } else {
        CHECK((b.triangle[i] >= 0) == (a.triangle[i] >= 0));
      }
    }
  }
}

TEST_CASE("rasterizer: clipping gives the part of a larger picture") {
  std::mt19937 random(6);
  for (int round = 0; round < 100; ++round) {
    Vertices vertices;
    Triangles triangles;
    random_soup(random, 40, 40, vertices, triangles);
    const Picture whole = drawn(vertices, triangles, 100, 100);
    const int left = static_cast<int>(random() % 40), top = static_cast<int>(random() % 40);
    Vertices moved = vertices;
    for (std::size_t k = 0; k < moved.size(); k += 3) {
      moved[k] -= static_cast<float>(left);  // exact: multiples of 1/16
      moved[k + 1] -= static_cast<float>(top);
    }
    const int height = 1 + static_cast<int>(random() % 17);
    const int width = 1 + static_cast<int>(random() % 23);
    const Picture part = drawn(moved, triangles, height, width);
    check_part(part, whole, left, top);
    Picture window(height, width);
    RasterBuffers buffers = window.buffers();
    buffers.left = left;
    buffers.top = top;
    draw(vertices, triangles, buffers);
    CHECK(window.triangle == part.triangle);
    CHECK(window.depth == part.depth);
    CHECK(window.barycentric == part.barycentric);
  }
}

TEST_CASE("rasterizer: weights sum to 1 and reproduce position, depth and attributes") {
  std::mt19937 random(7);
  std::uniform_real_distribution<float> value(0.0f, 1.0f);
  for (int round = 0; round < 20; ++round) {
    Vertices vertices;
    Triangles triangles;
    random_soup(random, 30, 32, vertices, triangles);
    constexpr int kChannels = 5;
    std::vector<float> attributes(vertices.size() / 3 * kChannels);
    std::generate(attributes.begin(), attributes.end(), [&] { return value(random); });
    Picture p(32, 32);
    std::vector<float> image(p.pixels() * kChannels, -7.0f);
    RasterBuffers buffers = p.buffers();
    buffers.image = image.data();
    draw(vertices, triangles, buffers, attributes, kChannels);
    for (int y = 0; y < 32; ++y) {
      for (int x = 0; x < 32; ++x) {
        const std::size_t i = p.pixel(x, y);
        if (!p.drawn(x, y)) {
          CHECK(p.depth[i] == -kInfinity);
          CHECK(image[i * kChannels] == -7.0f);
          continue;
        }
        const float* w = &p.barycentric[3 * i];
        CHECK(std::min({w[0], w[1], w[2]}) >= 0.0f);
        CHECK(w[0] + w[1] + w[2] == doctest::Approx(1.0));
        const auto interpolated = [&](const std::vector<float>& of, std::size_t step,
                                      std::size_t c) {
          double sum = 0;
          for (std::size_t k = 0; k < 3; ++k) {
            const auto corner = static_cast<std::size_t>(
                triangles[3 * static_cast<std::size_t>(p.triangle[i]) + k]);
            sum += double(w[k]) * of[corner * step + c];
          }
          return sum;
        };
        CHECK(std::abs(interpolated(vertices, 3, 0) - x) < 1e-4);
        CHECK(std::abs(interpolated(vertices, 3, 1) - y) < 1e-4);
        CHECK(std::abs(interpolated(vertices, 3, 2) - p.depth[i]) < 1e-4);
        for (std::size_t c = 0; c < kChannels; ++c) {
          CHECK(std::abs(interpolated(attributes, kChannels, c) - image[i * kChannels + c]) < 1e-6);
        }
      }
    }
  }
}

TEST_CASE("rasterizer: both windings draw the same") {
  std::mt19937 random(8);
  Vertices vertices;
  Triangles triangles;
  random_soup(random, 200, 32, vertices, triangles);
  for (std::size_t t = 0; t < triangles.size(); t += 3) {
    const Triangles one(triangles.begin() + static_cast<std::ptrdiff_t>(t),
                        triangles.begin() + static_cast<std::ptrdiff_t>(t) + 3);
    const Picture p = drawn(vertices, one, 32, 32);
    const Picture q = drawn(vertices, {one[0], one[2], one[1]}, 32, 32);
    CHECK(p.triangle == q.triangle);
    for (std::size_t i = 0; i < p.pixels(); ++i) {
      if (p.triangle[i] == 0) {
        CHECK(p.depth[i] == doctest::Approx(q.depth[i]));
        CHECK(p.barycentric[3 * i + 1] == doctest::Approx(q.barycentric[3 * i + 2]));
      }
    }
  }
}

TEST_CASE("rasterizer: which buffers there are does not change the others") {
  std::mt19937 random(9);
  Vertices vertices;
  Triangles triangles;
  random_soup(random, 50, 32, vertices, triangles);
  const std::vector<float> attributes(vertices);
  const Picture reference = drawn(vertices, triangles, 32, 32);
  for (int mask = 0; mask < 8; ++mask) {
    Picture p(32, 32);
    std::vector<float> image(3 * p.pixels());
    RasterBuffers buffers = p.buffers();
    buffers.triangle = mask & 1 ? buffers.triangle : nullptr;
    buffers.barycentric = mask & 2 ? buffers.barycentric : nullptr;
    buffers.image = mask & 4 ? image.data() : nullptr;
    draw(vertices, triangles, buffers, mask & 4 ? attributes : std::vector<float>{}, 3);
    CHECK(p.depth == reference.depth);
    CHECK((p.triangle == reference.triangle) == ((mask & 1) != 0));
    CHECK((p.barycentric == reference.barycentric) == ((mask & 2) != 0));
    if (mask & 4) {
      for (std::size_t i = 0; i < p.pixels(); ++i) {
        // The third attribute is z.
        CHECK(image[3 * i + 2] == (p.depth[i] == -kInfinity ? 0.0f : p.depth[i]));
      }
    }
  }
}

TEST_CASE("rasterizer: triangles without area, or not finite, draw nothing") {
  const Picture empty(8, 8);
  const Vertices vertices{1, 1, 0, 5, 1, 0, 3, 1, 0, 1, 5, 0, 1, 1, 0};
  CHECK(drawn(vertices, {0, 1, 2, 0, 0, 3, 0, 4, 1, 2, 2, 2}, 8, 8).triangle == empty.triangle);
  for (const float bad : {kNan, kInfinity, -kInfinity}) {
    for (std::size_t k = 0; k < 9; ++k) {
      Vertices broken{0, 0, 0, 7, 0, 0, 0, 7, 0};
      broken[k] = bad;
      const Picture p = drawn(broken, {0, 1, 2, 2, 1, 0, 1, 2, 0}, 8, 8);
      CHECK(p.triangle == empty.triangle);
      CHECK(p.depth == empty.depth);
    }
  }
}

TEST_CASE("rasterizer: depths whose difference float does not hold draw nothing") {
  for (const float size : {3.0f, 9.0f, 30.0f}) {
    const Vertices vertices{0, 0, -3e38f, size, 0, 3e38f, 0, size, 3e38f};
    CHECK(drawn(vertices, {0, 1, 2}, 40, 40).triangle == Picture(40, 40).triangle);
    CHECK(drawn(vertices, {1, 2, 0}, 40, 40).triangle == Picture(40, 40).triangle);
  }
}

TEST_CASE("rasterizer: any coordinates are safe") {
  const std::vector<float> values{
      0.0f,  -0.0f, 1.0f,    2.5f,     7.0f, 8.0f,      -1.0f,      1e-45f, 1e-30f,    1e9f,
      -1e9f, 3e9f,  3.4e38f, -3.4e38f, kNan, kInfinity, -kInfinity, 0.1f,   3.9999998f};
  std::mt19937 random(10);
  for (int round = 0; round < 20000; ++round) {
    Vertices vertices(9);
    std::generate(vertices.begin(), vertices.end(),
                  [&] { return values[random() % values.size()]; });
    const Picture p = drawn(vertices, {0, 1, 2}, 8, 20);
    for (const float weight : p.barycentric) {
      REQUIRE(weight >= 0.0f);
      REQUIRE(weight <= 1.0f);
    }
  }
}

TEST_CASE("rasterizer: bad input is refused") {
  Picture p(4, 4);
  std::vector<float> image(p.pixels());
  const Vertices vertices{0, 0, 1, 4, 0, 1, 0, 4, 1};
  const std::vector<float> three(3, 0.5f);
  CHECK_THROWS_AS(draw(vertices, {0, 1}, p.buffers()), std::invalid_argument);
  CHECK_THROWS_AS(draw(vertices, {0, 1, 3}, p.buffers()), std::invalid_argument);
  CHECK_THROWS_AS(draw(vertices, {0, -1, 2}, p.buffers()), std::invalid_argument);
  CHECK_THROWS_AS(draw(image, {0, 1, 2}, p.buffers()), std::invalid_argument);
  CHECK_THROWS_AS(draw(vertices, {0, 1, 2}, p.buffers(), three, 1), std::invalid_argument);
  RasterBuffers buffers = p.buffers();
  buffers.image = image.data();
  CHECK_THROWS_AS(draw(vertices, {0, 1, 2}, buffers, {}, 1), std::invalid_argument);
  CHECK_THROWS_AS(draw(vertices, {0, 1, 2}, buffers, three, 0), std::invalid_argument);
  CHECK(p.depth == std::vector<float>(16, -kInfinity));  // nothing half-drawn
  buffers.depth = nullptr;
  CHECK_THROWS_WITH(clear(buffers), "buffers: expected a depth buffer, got null");
  buffers.height = -1;
  CHECK_THROWS_AS(clear(buffers), std::invalid_argument);
  buffers.height = 1 << 24;
  buffers.top = 1;
  CHECK_THROWS_AS(clear(buffers), std::invalid_argument);
  RasterBuffers large = p.buffers();
  large.height = (1 << 15) + 1;
  large.width = 1 << 15;
  CHECK_THROWS_WITH(clear(large), "buffers: expected at most 2^30 pixels, got 1073774592");
  CHECK_NOTHROW(draw(vertices, {0, 1, 2}, RasterBuffers{}));
}
