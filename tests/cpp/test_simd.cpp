#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "simd/loops.hpp"
#include "simd/triangle.hpp"

using namespace threedfa::simd;

namespace {

std::mt19937 generator(5);

std::vector<float> random_floats(std::size_t count, float low, float high) {
  std::uniform_real_distribution<float> pick(low, high);
  std::vector<float> values(count);
  for (float& value : values) value = pick(generator);
  return values;
}

/// A copy of bytes; where the system can do it, a page that must not be read follows them: the
/// address sanitizer does not see what gathers read.
class GuardedBytes {
 public:
#if __has_include(<sys/mman.h>)
  explicit GuardedBytes(const std::vector<std::uint8_t>& bytes)
      : page_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))),
        size_((bytes.size() + page_ - 1) / page_ * page_) {
    void* const memory =
        mmap(nullptr, size_ + page_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    begin_ = static_cast<std::uint8_t*>(memory);
    REQUIRE(mprotect(begin_ + size_, page_, PROT_NONE) == 0);
    data_ = std::copy(bytes.begin(), bytes.end(), begin_ + (size_ - bytes.size())) - bytes.size();
  }
  ~GuardedBytes() { munmap(begin_, size_ + page_); }
  GuardedBytes(const GuardedBytes&) = delete;
  GuardedBytes& operator=(const GuardedBytes&) = delete;

  const std::uint8_t* data() const { return data_; }

 private:
  std::size_t page_, size_;
  std::uint8_t *begin_, *data_;
#else
  explicit GuardedBytes(const std::vector<std::uint8_t>& bytes) : bytes_(bytes) {}

  const std::uint8_t* data() const { return bytes_.data(); }

 private:
  std::vector<std::uint8_t> bytes_;
#endif
};

/// Calls `check(scalar, other)` with each build that this machine can run.
template <class Check>
void for_each_build(Check check) {
  std::size_t count = 0;
  const Loops* const* builds = threedfa::simd::available(count);
  REQUIRE(count >= 1);
  CHECK(std::string(builds[0]->name) == "scalar");
  for (std::size_t i = 0; i < count; ++i) {
    CAPTURE(builds[i]->name);
    check(*builds[0], *builds[i]);
  }
}

/// Number of the last vertex.
std::int32_t last_of(const std::vector<float>& vertices) {
  return static_cast<std::int32_t>(vertices.size() / 3) - 1;
}

/// A place of a list of fragments.
struct Listed {
  std::int32_t triangle, pixel;
  float weights[3], depth;

  bool operator==(const Listed& other) const {
    return triangle == other.triangle && pixel == other.pixel && weights[0] == other.weights[0] &&
           weights[1] == other.weights[1] && weights[2] == other.weights[2] && depth == other.depth;
  }
};

/// `count` places of the list, by triangle and pixel: builds list them in different orders.
std::vector<Listed> listed(const FragmentList& list, const std::int32_t* places,
                           std::size_t count) {
  std::vector<Listed> found;
  for (std::size_t k = 0; k < count; ++k) {
    const std::int32_t at = places[k];
    REQUIRE((at >= 0 && static_cast<std::size_t>(at) < list.size));
    found.push_back({list.triangle[at],
                     list.pixel[at],
                     {list.weights[0][at], list.weights[1][at], list.weights[2][at]},
                     list.depth[at]});
  }
  std::sort(found.begin(), found.end(), [](const Listed& a, const Listed& b) {
    return std::pair(a.triangle, a.pixel) < std::pair(b.triangle, b.pixel);
  });
  return found;
}

std::vector<Listed> inside(const FragmentList& list) {
  return listed(list, list.inside, list.inside_count);
}

std::vector<Listed> unsure(const FragmentList& list) {
  return listed(list, list.unsure, list.unsure_count);
}

}  // namespace

TEST_CASE("simd: the build in use is the one that the environment names, else the fastest") {
  std::size_t count = 0;
  const Loops* const* builds = threedfa::simd::available(count);
  const Loops* expected = builds[count - 1];
#if defined(__aarch64__) && !defined(__APPLE__)  // Apple's may be for several processors at once
  CHECK(std::string(expected->name) == "neon");
#endif
  const char* const wanted = std::getenv("THREEDFA_SIMD");
  for (std::size_t i = 0; wanted != nullptr && i < count; ++i) {
    if (std::string(builds[i]->name) == wanted) expected = builds[i];
  }
  CHECK(&loops() == expected);
}

TEST_CASE("simd: every build adds rows to the same bits") {
  for (const std::size_t modes : {0, 1, 3, 4, 7, 50}) {
    for (const std::size_t size : {0, 1, 15, 16, 17, 1000}) {
      const std::size_t faces = modes % 4 + 4 * (size % 5);  // up to 11
      std::vector<std::int16_t> steps(modes * size);
      for (auto& step : steps) step = static_cast<std::int16_t>(generator());
      const auto scales = random_floats(modes, -1, 1);
      const auto coefficients = random_floats(faces * modes, -3, 3);
      const auto start = random_floats(faces * size, -1000, 1000);
      std::vector<float> values(modes * size);
      std::vector<const float*> floats, weights;
      std::vector<const std::int16_t*> integers;
      for (std::size_t k = 0; k < modes; ++k) {
        floats.push_back(values.data() + k * size);
        integers.push_back(steps.data() + k * size);
        for (std::size_t i = k * size; i < (k + 1) * size; ++i) {
          values[i] = scales[k] * static_cast<float>(steps[i]);
        }
      }
      // The definition, one mode after the other.
      auto expected = start;
      for (std::size_t f = 0; f < faces; ++f) {
        weights.push_back(coefficients.data() + f * modes);
        for (std::size_t i = 0; i < size; ++i) {
          for (std::size_t k = 0; k < modes; ++k) {
            expected[f * size + i] += weights[f][k] * floats[k][i];
          }
        }
      }
      for_each_build([&](const Loops&, const Loops& other) {
        const BasisRows rows[] = {{floats.data(), nullptr, nullptr},
                                  {nullptr, integers.data(), scales.data()}};
        for (const BasisRows& form : rows) {
          if (modes == 0) continue;  // data() of an empty vector says nothing about the form
          auto found = start;
          std::vector<float*> sums;
          for (std::size_t f = 0; f < faces; ++f) sums.push_back(found.data() + f * size);
          other.add_rows(form, modes, size, faces, weights.data(), sums.data());
          CHECK(found == expected);
        }
      });
    }
  }
}

TEST_CASE("simd: every build covers the same pixels to the same bits") {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const float odd[] = {kNan, -kNan, 1e-45f, -3e38f, 3e38f, std::numeric_limits<float>::infinity()};
  constexpr int kHeight = 30, kWidth = 40;
  for (int round = 0; round < 100; ++round) {
    const std::size_t count = 1 + generator() % TriangleBatch::kMost;
    auto vertices = random_floats(9 * count, -10, 50);
    if (round % 2 == 0) {  // centres of pixels on edges and corners
      for (float& value : vertices) value = std::round(value);
    }
    if (round % 5 == 0) {
      for (const float value : odd) vertices[generator() % vertices.size()] = value;
    }
    std::vector<std::int32_t> triangles(3 * count);
    for (auto& index : triangles) {
      index = static_cast<std::int32_t>(generator() % (vertices.size() / 3));
    }
    if (round % 4 != 3) {  // of every size, from below a pixel to large
      for (std::size_t i = 0; i < vertices.size(); i += 9) {
        const float size = std::ldexp(1.0f, static_cast<int>(generator() % 6));
        for (std::size_t k = i; k < i + 9; ++k) {
          if (k % 3 != 2) vertices[k] = vertices[i + k % 3] + std::remainder(vertices[k], size);
        }
        for (std::size_t k = i / 3; k < i / 3 + 3; ++k) {
          triangles[k] = static_cast<std::int32_t>(k);
        }
      }
    }
    const MeshView mesh{vertices.data(), triangles.data(), last_of(vertices)};
    const PixelWindow window{3, kWidth, 5, kHeight};
    for_each_build([&](const Loops& scalar, const Loops& other) {
      const PixelGrid grid{3, 5, kWidth - 2};
      TriangleBatch expected{}, found{};
      scalar.set_up_triangles(mesh, 0, count, window, grid, expected);
      other.set_up_triangles(mesh, 0, count, window, grid, found);
      std::vector<std::int32_t> medium, others;
      for (std::size_t i = 0; i < count; ++i) {
        REQUIRE(found.kind[i] == expected.kind[i]);
        if (found.kind[i] == TriangleBatch::kEmpty) continue;
        CHECK((found.left[i] >= 3 && found.top[i] >= 5));
        CHECK((found.columns[i] >= 0 && found.left[i] + found.columns[i] <= kWidth));
        CHECK((found.rows[i] >= 0 && found.top[i] + found.rows[i] <= kHeight));
        CHECK((found.left[i] == expected.left[i] && found.columns[i] == expected.columns[i] &&
               found.top[i] == expected.top[i] && found.rows[i] == expected.rows[i]));
        CHECK((found.triangle[i] == static_cast<std::int32_t>(i)));
        const bool fits = found.columns[i] < 4 && found.rows[i] < 4;
        CHECK((found.kind[i] != TriangleBatch::kSmall || fits));
        CHECK((found.kind[i] != TriangleBatch::kMedium ||
               (!fits && found.columns[i] < 16 && found.rows[i] < 16)));
        CHECK((found.inside[i] <= 1.0f / 8192 || !std::isfinite(found.inside[i])));
        if (found.kind[i] != TriangleBatch::kSmall) others.push_back(static_cast<std::int32_t>(i));
        if (medium.size() < 3 && found.kind[i] == TriangleBatch::kMedium) {
          medium.push_back(static_cast<std::int32_t>(i));
        }
      }
      CHECK(std::vector(found.others, found.others + found.other_count) == others);
      CHECK(std::vector(expected.others, expected.others + expected.other_count) == others);
      const std::size_t first = generator() % count,
                        last = first + generator() % (count - first) + 1;
      FragmentList one{}, two{};
      scalar.cover_small(expected, first, last, grid, one);
      other.cover_small(found, first, last, grid, two);
      CHECK((inside(one) == inside(two)));
      scalar.cover_medium(expected, medium.data(), medium.size(), grid, one);
      other.cover_medium(found, medium.data(), medium.size(), grid, two);
      CHECK((inside(one) == inside(two)));
      const auto doubts = unsure(one), same_doubts = unsure(two);
      REQUIRE(doubts.size() == same_doubts.size());
      for (std::size_t i = 0; i < doubts.size(); ++i) {
        CHECK((doubts[i].triangle == same_doubts[i].triangle));
        CHECK((doubts[i].pixel == same_doubts[i].pixel));
      }

      const float* const v = vertices.data();
      const Triangle triangle = make_triangle(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8]);
      FragmentList row{}, same{};
      const auto width = static_cast<std::int32_t>(count);
      scalar.cover_row(triangle, 4, 7, 3, width, grid, row);
      other.cover_row(triangle, 4, 7, 3, width, grid, same);
      CHECK((inside(row) == inside(same)));

      // Attributes of what the list shows, of one to five channels.
      const std::size_t channels = 1 + generator() % 5;
      const auto values = random_floats(channels * vertices.size() / 3, -1, 1);
      const Attributes attributes{triangles.data(), values.data(), channels};
      std::vector<float> image(channels * (kWidth - 2) * (kHeight - 4), 9.0f), same_image(image);
      scalar.paint_attributes(one, one.inside, one.inside_count, attributes, image.data());
      other.paint_attributes(one, one.inside, one.inside_count, attributes, same_image.data());
      CHECK(image == same_image);
    });
  }
}

TEST_CASE("simd: where single precision is sure of a pixel, exact arithmetic says the same") {
  std::size_t sure = 0, undecided = 0;
  for (int round = 0; round < 400; ++round) {
    constexpr std::size_t kCount = TriangleBatch::kMost;
    // From far below a pixel to too large, around points from the window's corner to far away.
    const float size = std::ldexp(1.0f, round % 12 - 5);
    const float far = round % 3 == 0 ? 4000.0f : 60.0f;
    constexpr std::int32_t kEnd = 5000;
    const PixelWindow window{0, kEnd, 0, kEnd};
    const PixelGrid grid{0, 0, kEnd + 1};
    const auto middles = random_floats(2 * kCount, -1, far);
    auto vertices = random_floats(9 * kCount, -size, size);
    std::vector<std::int32_t> triangles(3 * kCount);
    for (std::size_t i = 0; i < 3 * kCount; ++i) {
      triangles[i] = static_cast<std::int32_t>(i);
      for (std::size_t axis = 0; axis < 2; ++axis) {
        vertices[3 * i + axis] += middles[2 * (i / 3) + axis];
        if (round % 4 == 0) {  // thin ones, and centres of pixels on edges
          vertices[3 * i + axis] = std::round(8 * vertices[3 * i + axis]) / 8;
        }
      }
    }
    if (round % 3 < 2) {  // flat, or upright, ones
      for (std::size_t i = round % 3; i < vertices.size(); i += 3) vertices[i] /= 64;
    }
    TriangleBatch batch{};
    const MeshView mesh{vertices.data(), triangles.data(), last_of(vertices)};
    loops().set_up_triangles(mesh, 0, kCount, window, grid, batch);
    for (std::size_t i = 0; i < kCount; ++i) {
      FragmentList list{};
      const auto slot = static_cast<std::int32_t>(i);
      if (batch.kind[i] == TriangleBatch::kEmpty || batch.kind[i] == TriangleBatch::kLarge)
        continue;
      if (batch.kind[i] == TriangleBatch::kSmall) {
        loops().cover_small(batch, i, i + 1, grid, list);
      } else {
        loops().cover_medium(batch, &slot, 1, grid, list);
      }
      const auto found = inside(list), doubts = unsure(list);
      const auto place_of = [](const std::vector<Listed>& where, std::int32_t pixel) {
        return std::find_if(where.begin(), where.end(),
                            [pixel](const Listed& each) { return each.pixel == pixel; });
      };
      const float* const v = vertices.data() + 9 * i;
      const Triangle triangle = make_triangle(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8]);
      const Edge* const edges = triangle.edges;
      std::size_t covered = 0, open = 0;
      for (std::int32_t y = batch.top[i]; y <= batch.top[i] + batch.rows[i]; ++y) {
        for (std::int32_t x = batch.left[i]; x <= batch.left[i] + batch.columns[i]; ++x) {
          const std::int32_t pixel = y * grid.width + x;
          if (place_of(doubts, pixel) != doubts.end()) {
            ++open;
            continue;
          }
          ++sure;
          const Fragment exact =
              fragment_at(triangle, value_at(edges[0], x, value_in_row(edges[0], y)),
                          value_at(edges[1], x, value_in_row(edges[1], y)),
                          value_at(edges[2], x, value_in_row(edges[2], y)));
          const auto at = place_of(found, pixel);
          REQUIRE((at != found.end()) == exact.inside);
          if (!exact.inside) continue;
          ++covered;
          CHECK(at->triangle == slot);
          for (std::size_t k = 0; k < 3; ++k) {
            CHECK(at->weights[k] >= 0.0f);
            CHECK(std::abs(at->weights[k] - exact.weights[k]) <= batch.inside[i]);
          }
          CHECK(std::abs(at->depth - exact.depth) <= 4 * size * (batch.inside[i] + 1e-6f));
        }
      }
      CHECK(covered == found.size());  // nothing twice, nothing beyond the box
      CHECK(open == doubts.size());
      undecided += open;
    }
  }
  CHECK(sure > 10000);
  CHECK(undecided > 100);
}

TEST_CASE("simd: every build finds the same bounds and the same largest index") {
  constexpr std::size_t kLanes = Loops::kBoundsLanes;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const std::size_t count : {0, 1, 3, 47, 48, 49, 96, 300, 1000}) {
    auto values = random_floats(count, -5, 5);
    std::vector<std::int32_t> indices(count);
    for (auto& index : indices) index = static_cast<std::int32_t>(generator() % 1000);
    if (count > 3) {
      values[count / 2] = kNan;
      if (count % 2 == 0) indices[count / 2] = -7;
    }
    std::array<float, kLanes> least, most;
    least.fill(4.0f);
    most.fill(-4.0f);
    for (std::size_t i = 0; i < count; ++i) {
      if (std::isnan(values[i])) continue;
      least[i % kLanes] = std::min(least[i % kLanes], values[i]);
      most[i % kLanes] = std::max(most[i % kLanes], values[i]);
    }
    std::uint32_t largest = 0;
    for (const std::int32_t index : indices) {
      largest = std::max(largest, static_cast<std::uint32_t>(index));
    }
    for_each_build([&](const Loops&, const Loops& other) {
      std::array<float, kLanes> low, high;
      low.fill(4.0f);
      high.fill(-4.0f);
      other.find_bounds(values.data(), count, low.data(), high.data());
      CHECK(low == least);
      CHECK(high == most);
      CHECK(other.largest_index(indices.data(), count) == largest);
    });
  }
}

TEST_CASE("simd: every build paints attributes as bytes, rounded down, and no other bytes") {
  constexpr std::int32_t kWidth = 13, kHeight = 7;
  constexpr std::size_t kVertices = 20, kTriangles = 30, kPlaces = 60;
  const float odd[] = {std::numeric_limits<float>::quiet_NaN(),
                       std::numeric_limits<float>::infinity(),
                       -std::numeric_limits<float>::infinity(),
                       3e38f,
                       -3e38f,
                       1.0f,
                       -0.0f};
  std::vector<std::int32_t> triangles(3 * kTriangles);
  for (auto& vertex : triangles) vertex = static_cast<std::int32_t>(generator() % kVertices);
  FragmentList list{};
  list.inside_count = kPlaces;
  for (std::size_t k = 0; k < kPlaces; ++k) {
    list.inside[k] = static_cast<std::int32_t>(kPlaces - k);
    list.pixel[k + 1] = static_cast<std::int32_t>(generator() % (kWidth * kHeight));
    list.triangle[k + 1] = static_cast<std::int32_t>(generator() % kTriangles);
    for (auto& weights : list.weights) weights[k + 1] = random_floats(1, 0, 1)[0];
  }
  for (const std::size_t channels : {1, 2, 3, 4, 5}) {
    for (const std::size_t bytes_of_pixel : {channels, channels == 1 ? 3 : channels}) {
      auto values = random_floats(kVertices * channels, -0.2f, 1.2f);
      for (const float value : odd) values[generator() % values.size()] = value;
      std::vector<std::uint8_t> content(values.size() * sizeof(float));
      std::memcpy(content.data(), values.data(), content.size());
      const GuardedBytes guarded(content);
      const Attributes attributes{triangles.data(), reinterpret_cast<const float*>(guarded.data()),
                                  channels};
      const float scale = channels == 2 ? 300.0f : 255.0f;
      const std::size_t stride = kWidth * bytes_of_pixel + 4;
      std::vector<std::uint8_t> expected(kHeight * stride, 77);
      for_each_build([&](const Loops& scalar, const Loops& other) {
        std::vector<float> image(kWidth * kHeight * channels);
        scalar.paint_attributes(list, list.inside, kPlaces, attributes, image.data());
        for (std::size_t k = 0; k < kPlaces; ++k) {
          const auto pixel = static_cast<std::size_t>(list.pixel[list.inside[k]]);
          for (std::size_t i = 0; i < bytes_of_pixel; ++i) {
            const float value = image[pixel * channels + i % channels] * scale;
            const float inside = value > 0 ? std::min(value, 255.0f) : 0.0f;
            expected[pixel / kWidth * stride + pixel % kWidth * bytes_of_pixel + i] =
                static_cast<std::uint8_t>(inside);
          }
        }
        std::vector<std::uint8_t> bytes(expected.size(), 77);
        other.paint_bytes(
            list, list.inside, kPlaces, attributes,
            {bytes.data(), static_cast<std::ptrdiff_t>(stride), kWidth, bytes_of_pixel, scale});
        CHECK(bytes == expected);
      });
    }
  }
}

TEST_CASE("simd: every build finds the bytes of the last pixels of huge grids") {
  const std::vector<std::int32_t> triangle{0, 0, 0};
  const std::vector<float> color{0.25f, 0.5f, 0.75f};
  const Attributes attributes{triangle.data(), color.data(), 3};
  for (const std::int32_t width : {1, 3, 7, 1000, 65537, (1 << 24) - 1}) {
    for (const std::int32_t back : {1, 2, width, width + 1}) {
      const std::int32_t pixel = (1 << 30) / width * width - back;
      FragmentList list{};
      list.pixel[0] = pixel;
      std::vector<std::uint8_t> expected(3 * static_cast<std::size_t>(width), 77);
      const std::uint8_t painted[] = {25, 50, 75};
      std::copy(std::begin(painted), std::end(painted),
                expected.begin() + 3 * static_cast<std::ptrdiff_t>(pixel % width));
      for_each_build([&](const Loops&, const Loops& other) {
        std::vector<std::uint8_t> row(expected.size(), 77);  // all rows are this one in memory
        other.paint_bytes(list, list.inside, 1, attributes, {row.data(), 0, width, 3, 100.0f});
        CHECK(row == expected);
      });
    }
  }
}

TEST_CASE("simd: every build finds the overlaps of the definition, however large the boxes are") {
  for (int round = 0; round < 4000; ++round) {
    const std::size_t count = static_cast<std::size_t>(round % 150);
    const float unit = round % 3 == 0 ? std::ldexp(1.0f, round % 130 - 75) : 1.0f;
    std::array<std::vector<float>, 5> boxes;
    const auto corners = random_floats(4 * (count + 1), 0, 40 * unit);
    const float offset = static_cast<float>(round % 2) * unit;
    std::array<float, 5> box{};
    for (std::size_t k = 0; k <= count; ++k) {
      const float* c = corners.data() + 4 * k;
      const float area = (c[2] - c[0] + offset) * (c[3] - c[1] + offset);  // may be negative
      const float values[] = {c[0], c[1], c[2], c[3], area};
      for (std::size_t f = 0; f < 5; ++f) {
        if (k < count) {
          boxes[f].push_back(values[f]);
        } else {
          box[f] = values[f];
        }
      }
    }
    const float* const fields[] = {boxes[0].data(), boxes[1].data(), boxes[2].data(),
                                   boxes[3].data(), boxes[4].data()};
    const float threshold = 0.1f * static_cast<float>(round % 11);
    bool expected = false;
    for (std::size_t k = 0; k < count; ++k) {
      const float width = std::min(boxes[2][k], box[2]) - std::max(boxes[0][k], box[0]) + offset;
      const float height = std::min(boxes[3][k], box[3]) - std::max(boxes[1][k], box[1]) + offset;
      const float intersection = std::max(width, 0.0f) * std::max(height, 0.0f);
      const float united = boxes[4][k] + box[4] - intersection;
      expected = expected || (united > 0.0f && intersection / united >= threshold);
    }
    for_each_build([&](const Loops&, const Loops& other) {
      CHECK(other.overlaps_any(fields, count, box.data(), threshold, offset) == expected);
    });
  }
}

TEST_CASE("simd: every build shades to the same bits") {
  for (const std::size_t count : {0, 1, 15, 16, 63, 64, 65, 300}) {
    auto vertices = random_floats(3 * count, -1, 1);
    const auto normals = random_floats(3 * count, -1, 1);
    ShadingTerms terms{{-1, -1, -1}, {1, 1, 1}, 2, {0, 0, 5}, {0, 1, 5}, 0.3f, 0.6f, 0.5f, 0};
    if (count > 0) {
      std::copy_n(terms.light, 3, vertices.begin());  // a vertex where the light is
    }
    for (terms.shininess = 1; terms.shininess < 12; ++terms.shininess) {
      for_each_build([&](const Loops& scalar, const Loops& other) {
        std::vector<float> expected(count), found(count);
        scalar.shade(vertices.data(), normals.data(), count, terms, expected.data());
        other.shade(vertices.data(), normals.data(), count, terms, found.data());
        CHECK(expected == found);
      });
    }
  }
}

TEST_CASE("simd: every build divides by lengths to the same bits") {
  for (const std::size_t count : {0, 1, 15, 16, 63, 64, 65, 300}) {
    auto floats = random_floats(4 * count, -1, 1);
    std::size_t unusual = 0;
    for (std::size_t i = 0; i < count; i += 7) {  // none, too short, or too long
      for (std::size_t k = 4 * i; k < 4 * i + 4; ++k) {
        floats[k] *= i % 3 == 0 ? 0.0f : i % 3 == 1 ? 1e-32f : 1e35f;
      }
      ++unusual;
    }
    const std::vector<double> doubles(floats.begin(), floats.end());
    for_each_build([&](const Loops& scalar, const Loops& other) {
      std::vector<float> expected(3 * count), found(3 * count);
      scalar.unit_vectors(doubles.data(), count, expected.data());
      CHECK(other.unit_vectors(doubles.data(), count, found.data()) == unusual);
      CHECK(expected == found);
      if (count > 0) CHECK(found[0] == 0.0f);
      scalar.unit_float_vectors(floats.data(), count, expected.data());
      CHECK(other.unit_float_vectors(floats.data(), count, found.data()) == unusual);
      CHECK(expected == found);
    });
  }
}

TEST_CASE("simd: every build adds areas to the same bits") {
  constexpr std::size_t kVertices = 150;
  for (const std::size_t count : {0, 1, 40, 300}) {
    // The last vertex is in no triangle: builds may read behind those that are.
    const auto vertices = random_floats(3 * kVertices, -100, 100);
    std::vector<std::int32_t> triangles(3 * count);
    for (auto& index : triangles) index = static_cast<std::int32_t>(generator() % (kVertices - 1));
    const threedfa::VertexRings rings(triangles, kVertices);
    for_each_build([&](const Loops& scalar, const Loops& other) {
      std::vector<double> expected(4 * kVertices), found(4 * kVertices);
      scalar.scatter_areas(vertices.data(), triangles.data(), count, expected.data());
      other.scatter_areas(vertices.data(), triangles.data(), count, found.data());
      for (std::size_t i = 0; i < expected.size(); ++i) {
        if (i % 4 != 3) CHECK(expected[i] == found[i]);
      }
      for (std::size_t b = 0; b < rings.block_count(); ++b) {
        constexpr std::size_t kSize = 4 * (threedfa::VertexRings::kBlock + 1);
        std::array<float, kSize> area{}, same{};
        const threedfa::VertexRings::Block block = rings.block(b);
        for (const auto& [loops, areas] : {std::pair{&scalar, &area}, std::pair{&other, &same}}) {
          loops->walk_areas(vertices.data(), block.pairs.begin(), block.pairs.end(), block.corners,
                            areas->data());
        }
        for (std::size_t i = 0; i < kSize; ++i) {
          if (i % 4 != 3) CHECK(area[i] == same[i]);
        }
      }
    });
  }
}

TEST_CASE("simd: every build blends rows to the same bytes and the same bits") {
  std::uniform_int_distribution<std::int16_t> pick(0, 255 * 2048 / 16);
  for (const std::size_t count : {0, 1, 31, 32, 33, 640}) {
    std::vector<std::int16_t> top(count), bottom(count);
    for (auto& value : top) value = pick(generator);
    for (auto& value : bottom) value = pick(generator);
    for (const std::int32_t weight : {0, 1, 1024, 2047, 2048}) {
      const RowPair pair{top.data(), bottom.data(), weight, 2048 - weight, weight == 1024};
      for_each_build([&](const Loops& scalar, const Loops& other) {
        std::vector<std::uint8_t> expected(count), found(count);
        scalar.blend_rows(pair, count, expected.data());
        other.blend_rows(pair, count, found.data());
        CHECK(expected == found);
        std::vector<float> normalized(count);
        other.blend_normalized(pair, count, 104.0f, 1 / 128.0f, normalized.data());
        for (std::size_t i = 0; i < count; ++i) {
          CHECK(normalized[i] == (static_cast<float>(expected[i]) - 104.0f) * (1 / 128.0f));
        }
      });
    }
  }
}

TEST_CASE("simd: every build makes the same grey rows") {
  constexpr int kMost = 255 * Loops::kGreyOne;
  for (const std::size_t count : {1, 7, 8, 15, 16, 17, 33, 640}) {
    // Exactly as long as it must be, for the address sanitizer.
    std::vector<std::uint8_t> pixels(3 * count, 255);
    for (std::size_t i = 6; i < pixels.size(); ++i) {
      pixels[i] = static_cast<std::uint8_t>(generator());
    }
    std::vector<std::int32_t> places;  // near one another and far apart
    for (std::size_t i = 0; i < count + 5; ++i) {
      places.push_back(static_cast<std::int32_t>(generator() % (i % 2 == 0 ? count : 62)));
    }
    for (std::int32_t& place : places)
      place = std::min(place, static_cast<std::int32_t>(count) - 1);
    std::sort(places.begin(), places.end());
    std::vector<std::uint32_t> weights;
    for (std::size_t i = 0; i < count + 5; ++i) {
      const auto weight = static_cast<std::uint32_t>(generator() % 2049);
      weights.push_back(weight | (2048 - weight) << 16);
    }
    for_each_build([&](const Loops& scalar, const Loops& other) {
      std::vector<std::int16_t> expected(count + Loops::kGreyBehind), found(expected.size());
      scalar.grey_row(pixels.data(), count, expected.data());
      other.grey_row(pixels.data(), count, found.data());
      CHECK(expected == found);
      CHECK(expected[0] == kMost);
      std::vector<std::int16_t> top(places.size()), bottom(places.size()), same(places.size());
      scalar.resample_grey(expected.data(), places.data(), weights.data(), top.size(), top.data());
      other.resample_grey(expected.data(), places.data(), weights.data(), same.size(), same.data());
      CHECK(top == same);
      std::reverse_copy(top.begin(), top.end(), bottom.begin());
      for (const std::int32_t weight : {0, 1, 1024, 2047}) {
        const RowPair pair{top.data(), bottom.data(), weight, 2048 - weight, false};
        std::vector<float> grey(top.size());
        other.blend_grey(pair, grey.size(), 127.5f * 2048, 0.25f / 2048, grey.data());
        for (std::size_t i = 0; i < grey.size(); ++i) {
          const float sum = static_cast<float>(weight * top[i] + (2048 - weight) * bottom[i]);
          CHECK(grey[i] == (sum / 2048 - 127.5f) * 0.25f);
        }
      }
    });
  }
}

TEST_CASE("simd: every build normalises to the same bits and reads no byte beyond the pixels") {
  const float mean[] = {127.5f, 104, 117}, scale[] = {1 / 128.0f, 1, -0.5f};
  for (const std::size_t count : {0, 1, 2, 10, 11, 15, 16, 17, 21, 22, 33, 480}) {
    // Exactly as long as it must be, for the address sanitizer.
    std::vector<std::uint8_t> pixels(3 * count);
    for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(7 * i);
    for_each_build([&](const Loops&, const Loops& other) {
      std::vector<float> found(3 * count);
      float* const planes[] = {found.data(), found.data() + 2 * count, found.data() + count};
      other.normalize_pixels(pixels.data(), count, mean, scale, planes);
      for (std::size_t i = 0; i < pixels.size(); ++i) {
        const std::size_t c = i % 3;
        CHECK(planes[c][i / 3] == (static_cast<float>(pixels[i]) - mean[c]) * scale[c]);
      }
      std::vector<float> grey(count);
      other.normalize_grey(pixels.data(), count, 1000.5f, 1 / 64.0f, grey.data());
      for (std::size_t i = 0; i < count; ++i) {
        const std::uint8_t* const p = &pixels[3 * i];
        const int sum = 38 * p[0] + 75 * p[1] + 15 * p[2];
        CHECK(grey[i] == (static_cast<float>(sum) - 1000.5f) * (1 / 64.0f));
      }
    });
  }
}

TEST_CASE("simd: every build resamples to the same sums") {
  for (const std::size_t count : {1, 7, 8, 15, 16, 17, 120, 480}) {
    const std::size_t source = 700;
    std::vector<std::uint8_t> row(3 * source + 2);  // and the bytes behind
    for (auto& value : row) value = static_cast<std::uint8_t>(generator());
    std::vector<std::int32_t> places;
    std::vector<std::uint32_t> weights;
    std::vector<std::int16_t> expected(3 * count);
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t place = generator() % (source - 1);
      const auto weight = static_cast<std::uint32_t>(i % 5 == 0 ? 0 : generator() % 2050);
      places.push_back(static_cast<std::int32_t>(place));
      weights.push_back((2049 - weight) + (weight << 16));
      for (std::size_t c = 0; c < 3; ++c) {
        const std::uint8_t* const pixel = row.data() + 3 * place + c;
        const std::uint32_t sum = (2049 - weight) * pixel[0] + weight * pixel[3];
        expected[c * count + i] = static_cast<std::int16_t>(sum / 16);
      }
    }
    for_each_build([&](const Loops&, const Loops& other) {
      std::vector<std::int16_t> found(3 * count);
      other.resample_planes(row.data(), places.data(), weights.data(), count, found.data());
      CHECK(expected == found);
    });
  }
}

TEST_CASE("simd: every build samples an image to the same bits and reads no byte beyond it") {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (int round = 0; round < 200; ++round) {
    const auto pick = [](int least, int most) {
      return least + static_cast<int>(generator() % static_cast<unsigned>(most - least + 1));
    };
    const int channels = pick(1, 4), height = pick(1, 9), width = pick(4, 20);
    const std::ptrdiff_t row = std::ptrdiff_t{width} * channels, stride = row + pick(0, 5);
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(stride * (height - 1) + row));
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(generator());
    const bool flipped = round % 3 == 0;  // the last row first in memory
    const auto origin = static_cast<std::int32_t>(flipped ? stride * (height - 1) : 0);
    const GuardedBytes guarded(bytes);
    const SampledImage image{guarded.data(), static_cast<std::int32_t>(bytes.size()),
                             origin,         static_cast<std::int32_t>(flipped ? -stride : stride),
                             height,         width,
                             channels};
    const std::size_t count = generator() % 50, step = 2 + generator() % 3;
    auto points = random_floats(count * step, -3, 22);
    points.resize(points.size() - std::min(points.size(), step - 2));  // ends with the last y
    for (const float odd : {kNan, kInfinity, -kInfinity, -0.0f, 3e38f}) {
      if (round % 2 == 0 && !points.empty()) points[generator() % points.size()] = odd;
    }
    std::vector<float> expected;
    const auto place = [](float position, int size) {
      return position > 0 ? std::min(position, static_cast<float>(size - 1)) : 0.0f;
    };
    for (std::size_t i = 0; i < count; ++i) {
      const float x = place(points[i * step], width), y = place(points[i * step + 1], height);
      const int left = static_cast<int>(x), right = std::min(left + 1, width - 1);
      const int top = static_cast<int>(y), bottom = std::min(top + 1, height - 1);
      const float right_share = x - static_cast<float>(left);
      const float lower_share = y - static_cast<float>(top);
      for (int c = 0; c < channels; ++c) {
        const auto pixel = [&](int at_y, int at_x) {
          const std::ptrdiff_t at = at_y * std::ptrdiff_t{image.row_stride} + at_x * channels + c;
          return static_cast<float>(bytes[static_cast<std::size_t>(origin + at)]);
        };
        expected.push_back((1 - right_share) * (1 - lower_share) * pixel(top, left) +
                           (1 - right_share) * lower_share * pixel(bottom, left) +
                           right_share * (1 - lower_share) * pixel(top, right) +
                           right_share * lower_share * pixel(bottom, right));
      }
    }
    for_each_build([&](const Loops&, const Loops& other) {
      std::vector<float> samples(expected.size(), -1.0f);
      other.sample_points(image, points.data(), step, count, samples.data());
      CHECK(samples == expected);
    });
  }
}
