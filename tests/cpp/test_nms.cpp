#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <stdexcept>

#include "threedfa/nms.hpp"

using threedfa::nms;
using Indices = std::vector<std::int64_t>;

namespace {

struct BoxSet {
  std::vector<float> boxes, scores;

  void add(float x1, float y1, float x2, float y2, float score) {
    boxes.insert(boxes.end(), {x1, y1, x2, y2});
    scores.push_back(score);
  }
  BoxSet pick(const Indices& rows) const {
    BoxSet picked;
    for (const std::int64_t row : rows) {
      const auto i = static_cast<std::size_t>(row);
      picked.add(boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3], scores[i]);
    }
    return picked;
  }
};

/// Boxes around a few centres, so that many overlap. Scores are distinct unless `levels` > 0.
BoxSet random_boxes(std::mt19937& random, int count, int levels = 0) {
  std::uniform_real_distribution<float> center(0.0f, 300.0f), jitter(-15.0f, 15.0f),
      side(5.0f, 90.0f);
  std::vector<float> scores(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) {
    scores[static_cast<std::size_t>(i)] =
        static_cast<float>(levels > 0 ? i % levels : i) / static_cast<float>(count);
  }
  std::shuffle(scores.begin(), scores.end(), random);
  BoxSet set;
  float cx = 0, cy = 0;
  for (int i = 0; i < count; ++i) {
    if (i % 6 == 0) {
      cx = center(random);
      cy = center(random);
    }
    const float x = cx + jitter(random), y = cy + jitter(random);
    set.add(x, y, x + side(random), y + side(random), scores[static_cast<std::size_t>(i)]);
  }
  return set;
}

bool removes(const BoxSet& set, std::size_t a, std::size_t b, double threshold, float offset) {
  const float* p = &set.boxes[4 * a];
  const float* q = &set.boxes[4 * b];
  const auto area = [offset](const float* r) {
    return (r[2] - r[0] + offset) * (r[3] - r[1] + offset);
  };
  const float width = std::max(0.0f, std::min(p[2], q[2]) - std::max(p[0], q[0]) + offset);
  const float height = std::max(0.0f, std::min(p[3], q[3]) - std::max(p[1], q[1]) + offset);
  const float both = area(p) + area(q) - width * height;
  return both > 0 && static_cast<double>(width * height / both) >= threshold;
}

/// The definition, word for word: the best box standing is kept and removes later ones.
Indices by_definition(const BoxSet& set, double threshold, float offset) {
  std::vector<bool> standing(set.scores.size(), true);
  Indices kept;
  for (;;) {
    std::size_t best = set.scores.size();
    for (std::size_t i = 0; i < set.scores.size(); ++i) {
      if (standing[i] && (best == set.scores.size() || set.scores[i] >= set.scores[best])) best = i;
    }
    if (best == set.scores.size()) return kept;
    kept.push_back(static_cast<std::int64_t>(best));
    standing[best] = false;
    for (std::size_t i = 0; i < set.scores.size(); ++i) {
      if (standing[i] && removes(set, best, i, threshold, offset)) standing[i] = false;
    }
  }
}

}  // namespace

TEST_CASE("nms: no boxes, one box, two apart, two alike") {
  BoxSet set;
  CHECK(nms(set.boxes, set.scores, 0.3).empty());
  set.add(0, 0, 10, 10, 0.5f);
  CHECK(nms(set.boxes, set.scores, 0.3) == Indices{0});
  set.add(50, 50, 60, 60, 0.9f);
  CHECK(nms(set.boxes, set.scores, 0.3) == Indices{1, 0});
  set.add(50, 50, 60, 60, 0.95f);
  CHECK(nms(set.boxes, set.scores, 0.3) == Indices{2, 0});
}

TEST_CASE("nms: an overlap exactly at the threshold removes") {
  BoxSet half;  // 10 x 10 and its lower half
  half.add(0, 0, 10, 10, 0.9f);
  half.add(0, 5, 10, 10, 0.8f);
  CHECK(nms(half.boxes, half.scores, 0.5) == Indices{0});
  CHECK(nms(half.boxes, half.scores, std::nextafter(0.5, 1.0)) == Indices{0, 1});

  BoxSet third;  // the quotient 3/10 is rounded to a float above the double 0.3
  third.add(0, 0, 10, 1, 0.9f);
  third.add(0, 0, 3, 1, 0.8f);
  CHECK(static_cast<double>(0.3f) > 0.3);
  CHECK(nms(third.boxes, third.scores, 0.3) == Indices{0});
  CHECK(nms(third.boxes, third.scores, static_cast<double>(0.3f)) == Indices{0});
  CHECK(nms(third.boxes, third.scores, std::nextafter(static_cast<double>(0.3f), 1.0)) ==
        Indices{0, 1});
}

TEST_CASE("nms: the offset counts pixels instead of lengths") {
  BoxSet set;  // 5 and 5 pixels wide, one column of pixels in common: 1/9; lengths only touch
  set.add(0, 0, 4, 4, 0.9f);
  set.add(4, 0, 8, 4, 0.8f);
  CHECK(nms(set.boxes, set.scores, 0.11, 1.0f) == Indices{0});
  CHECK(nms(set.boxes, set.scores, 0.12, 1.0f) == Indices{0, 1});
  CHECK(nms(set.boxes, set.scores, 0.01, 0.0f) == Indices{0, 1});
}

TEST_CASE("nms: equal scores are visited by falling index") {
  BoxSet set;
  for (int i = 0; i < 3; ++i) set.add(0, 0, 10, 10, 0.5f);
  set.add(100, 0, 110, 10, 0.5f);
  CHECK(nms(set.boxes, set.scores, 0.5) == Indices{3, 2});
}

TEST_CASE("nms: scores of any sign are visited from the largest on, 0 and -0 as equal ones") {
  BoxSet set;
  const std::vector<float> scores{-1e-40f, 0.0f, -2.5f, 1e-40f, -0.0f, 3.0f, -1e30f, 1e30f};
  for (std::size_t i = 0; i < scores.size(); ++i) {
    set.add(100.0f * static_cast<float>(i), 0, 100.0f * static_cast<float>(i) + 10, 10, scores[i]);
  }
  CHECK(nms(set.boxes, set.scores, 0.5, 0.0f) == Indices{7, 5, 3, 4, 1, 0, 2, 6});
}

TEST_CASE("nms: boxes without area overlap nothing") {
  BoxSet set;
  set.add(5, 5, 5, 5, 0.9f);
  set.add(5, 5, 5, 5, 0.8f);
  CHECK(nms(set.boxes, set.scores, 0.3) == Indices{0, 1});
  CHECK(nms(set.boxes, set.scores, 0.3, 1.0f) == Indices{0});  // one pixel, twice

  BoxSet minus_one;  // the +1 makes them empty: a union of zero
  minus_one.add(5, 5, 4, 4, 0.9f);
  minus_one.add(5, 5, 4, 4, 0.8f);
  CHECK(nms(minus_one.boxes, minus_one.scores, 0.3, 1.0f) == Indices{0, 1});

  BoxSet turned;  // x1 > x2: areas below zero, also where any overlap would do
  turned.add(10, 0, 0, 10, 0.9f);
  turned.add(10, 0, 0, 10, 0.8f);
  CHECK(nms(turned.boxes, turned.scores, 0.0) == Indices{0, 1});
}

TEST_CASE("nms: thresholds 0 and 1") {
  BoxSet set;
  set.add(0, 0, 10, 10, 0.9f);
  set.add(50, 50, 60, 60, 0.8f);
  set.add(0, 0, 10, 10, 0.7f);
  CHECK(nms(set.boxes, set.scores, 0.0) == Indices{0});  // 0 is at least 0
  CHECK(nms(set.boxes, set.scores, 1.0) == Indices{0, 1});
}

TEST_CASE("nms: equals the definition on random sets") {
  std::mt19937 random(1);
  for (int round = 0; round < 60; ++round) {
    const BoxSet set = random_boxes(random, 5 * round, round % 3 == 0 ? 4 : 0);
    for (const double threshold : {0.0, 0.1, 0.3, 0.7}) {
      for (const float offset : {0.0f, 1.0f}) {
        REQUIRE(nms(set.boxes, set.scores, threshold, offset) ==
                by_definition(set, threshold, offset));
      }
    }
  }
}

TEST_CASE("nms: the result is a subset, sorted, without overlaps, and stands a second run") {
  std::mt19937 random(2);
  for (int round = 0; round < 40; ++round) {
    const BoxSet set = random_boxes(random, 150);
    const Indices keep = nms(set.boxes, set.scores, 0.3, 1.0f);
    Indices unique = keep;
    std::sort(unique.begin(), unique.end());
    REQUIRE(std::adjacent_find(unique.begin(), unique.end()) == unique.end());
    REQUIRE(unique.front() >= 0);
    REQUIRE(unique.back() < 150);

    const BoxSet kept = set.pick(keep);
    REQUIRE(std::is_sorted(kept.scores.rbegin(), kept.scores.rend()));
    for (std::size_t a = 0; a < keep.size(); ++a) {
      for (std::size_t b = a + 1; b < keep.size(); ++b) {
        REQUIRE(!removes(kept, a, b, 0.3, 1.0f));
      }
    }
    Indices all(keep.size());
    std::iota(all.begin(), all.end(), 0);
    REQUIRE(nms(kept.boxes, kept.scores, 0.3, 1.0f) == all);
  }
}

TEST_CASE("nms: the order of the input does not matter") {
  std::mt19937 random(3);
  for (int round = 0; round < 40; ++round) {
    const BoxSet set = random_boxes(random, 120);
    Indices permutation(120);
    std::iota(permutation.begin(), permutation.end(), 0);
    std::shuffle(permutation.begin(), permutation.end(), random);
    const BoxSet shuffled = set.pick(permutation);
    Indices keep = nms(shuffled.boxes, shuffled.scores, 0.4);
    for (std::int64_t& index : keep) index = permutation[static_cast<std::size_t>(index)];
    REQUIRE(keep == nms(set.boxes, set.scores, 0.4));
  }
}

TEST_CASE("nms: refuses what it cannot answer") {
  BoxSet set;
  set.add(0, 0, 10, 10, 0.9f);
  set.add(1, 1, 11, 11, 0.8f);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();

  const std::vector<float> short_boxes(7);
  CHECK_THROWS_AS(nms(short_boxes, set.scores, 0.3), std::invalid_argument);
  const std::vector<float> one_score(1);
  CHECK_THROWS_WITH_AS(nms(set.boxes, one_score, 0.3),
                       "boxes: expected 4 values for each score, got 8 values for 1 scores",
                       std::invalid_argument);
  for (const double threshold : {-0.1, 1.1, std::numeric_limits<double>::quiet_NaN()}) {
    CHECK_THROWS_AS(nms(set.boxes, set.scores, threshold), std::invalid_argument);
  }
  for (const float offset : {-1.0f, nan, infinity}) {
    CHECK_THROWS_AS(nms(set.boxes, set.scores, 0.3, offset), std::invalid_argument);
  }
  for (const float bad : {nan, infinity, -infinity}) {
    BoxSet wrong = set;
    wrong.boxes[6] = bad;
    CHECK_THROWS_AS(nms(wrong.boxes, wrong.scores, 0.3), std::invalid_argument);
    wrong = set;
    wrong.scores[1] = bad;
    CHECK_THROWS_AS(nms(wrong.boxes, wrong.scores, 0.3), std::invalid_argument);
  }
}

TEST_CASE("nms: areas beyond the range of float32 overlap nothing") {
  const float huge = std::numeric_limits<float>::max();
  BoxSet set;
  set.add(-huge, -huge, huge, huge, 0.9f);
  set.add(-huge, -huge, huge, huge, 0.8f);
  CHECK(nms(set.boxes, set.scores, 0.3) == Indices{0, 1});
}
