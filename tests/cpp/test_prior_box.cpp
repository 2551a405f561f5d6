#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>

#include "threedfa/nms.hpp"
#include "threedfa/prior_box.hpp"

using namespace threedfa;

namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> make_priors(int height, int width,
                               const PriorConfig& config = PriorConfig::faceboxes()) {
  std::vector<float> priors(4 * prior_count(height, width, config));
  prior_boxes(height, width, config, priors);
  return priors;
}

PriorConfig one_size(int step, float size, int density, float offset) {
  return {{{step, {{size, density, offset}}}}};
}

/// A made-up network output: `scores` are rows of (background, face).
struct Output {
  std::vector<float> loc, scores, priors;
};

Output random_output(std::mt19937& random, int levels = 0) {
  std::uniform_real_distribution<float> offset(-1.5f, 1.5f), score(0.0f, 1.0f);
  Output output;
  output.priors = make_priors(64, 96);
  for (std::size_t i = 0; i < output.priors.size(); ++i) output.loc.push_back(offset(random));
  for (std::size_t i = 0; i < output.priors.size() / 4; ++i) {
    float face = score(random);
    if (levels > 0) {
      face = std::floor(face * static_cast<float>(levels)) / static_cast<float>(levels);
    }
    output.scores.insert(output.scores.end(), {1 - face, face});
  }
  return output;
}

std::vector<Candidate> candidates_of(const Output& output, float threshold, double scale_x = 96,
                                     double scale_y = 64) {
  return decode_candidates(output.loc, output.scores.data() + 1, 2, output.priors, {}, threshold,
                           scale_x, scale_y);
}

std::vector<Candidate> detections_of(const Output& output, std::size_t top_k,
                                     std::size_t keep_top_k) {
  return detect(output.loc, output.scores.data() + 1, 2, output.priors, {}, 0.3f, 96, 64, 0.3, 1.0f,
                top_k, keep_top_k);
}

}  // namespace

TEST_CASE("prior_count: grids are rounded up") {
  const PriorConfig config = PriorConfig::faceboxes();
  CHECK(prior_count(1, 1, config) == 23);
  CHECK(prior_count(32, 32, config) == 23);
  CHECK(prior_count(31, 33, config) == 2 * 21 + 1 + 1);
  CHECK(prior_count(64, 64, config) == 86);
  CHECK(prior_count(129, 257, config) == 966);
  CHECK(prior_count(720, 1080, config) == 16680);
  CHECK(prior_count(65, 40, one_size(20, 8, 3, 0)) == 4 * 2 * 9);
}

TEST_CASE("prior_boxes: order and values of FaceBoxes' first cells") {
  const std::vector<float> priors = make_priors(64, 128);
  const auto check = [&priors](std::size_t row, double cx, double cy, double w, double h) {
    CAPTURE(row);
    CHECK(priors[4 * row] == static_cast<float>(cx / 128));
    CHECK(priors[4 * row + 1] == static_cast<float>(cy / 64));
    CHECK(priors[4 * row + 2] == static_cast<float>(w / 128));
    CHECK(priors[4 * row + 3] == static_cast<float>(h / 64));
  };
  check(0, 0, 0, 32, 32);
  check(1, 8, 0, 32, 32);
  check(4, 0, 8, 32, 32);
  check(15, 24, 24, 32, 32);
  check(16, 0, 0, 64, 64);
  check(17, 16, 0, 64, 64);
  check(18, 0, 16, 64, 64);
  check(20, 16, 16, 128, 128);
  check(21, 32, 0, 32, 32);         // the next cell to the right
  check(4 * 21, 0, 32, 32, 32);     // the next row of cells
  check(8 * 21, 32, 32, 256, 256);  // the second level, 1 x 2 cells
  check(8 * 21 + 1, 96, 32, 256, 256);
  check(8 * 21 + 2, 64, 64, 512, 512);  // the third, one cell
  CHECK(priors.size() == 4 * (8 * 21 + 3));
}

TEST_CASE("prior_boxes: a configuration of one's own") {
  const std::vector<float> priors = make_priors(10, 20, one_size(10, 5, 2, 0.25f));
  const std::vector<float> centres{2.5f, 2.5f, 7.5f, 2.5f, 2.5f, 7.5f, 7.5f, 7.5f};
  REQUIRE(priors.size() == 4 * 8);
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(priors[4 * i] == doctest::Approx(centres[2 * i] / 20));
    CHECK(priors[4 * i + 1] == doctest::Approx(centres[2 * i + 1] / 10));
    CHECK(priors[4 * i + 2] == 0.25f);
    CHECK(priors[4 * i + 3] == 0.5f);
  }
}

TEST_CASE("prior_boxes: refuses sizes and configurations that make no sense") {
  const PriorConfig faceboxes = PriorConfig::faceboxes();
  CHECK_THROWS_AS(prior_count(0, 10, faceboxes), std::invalid_argument);
  CHECK_THROWS_AS(prior_count(10, -1, faceboxes), std::invalid_argument);
  CHECK_THROWS_AS(prior_count(10, 10, {}), std::invalid_argument);
  CHECK_THROWS_AS(prior_count(10, 10, {{{32, {}}}}), std::invalid_argument);
  CHECK_THROWS_WITH_AS(prior_count(10, 10, one_size(0, 8, 1, 0)),
                       "step: expected 1 pixel or more, got 0", std::invalid_argument);
  CHECK_THROWS_AS(prior_count(10, 10, one_size(-8, 8, 1, 0)), std::invalid_argument);
  CHECK_THROWS_AS(prior_count(10, 10, one_size(8, 8, 0, 0)), std::invalid_argument);
  CHECK_THROWS_AS(prior_count(10, 10, one_size(8, 0, 1, 0)), std::invalid_argument);
  CHECK_THROWS_AS(prior_count(10, 10, one_size(8, kNaN, 1, 0)), std::invalid_argument);
  CHECK_THROWS_AS(prior_count(10, 10, one_size(8, 8, 1, kInfinity)), std::invalid_argument);

  const int largest = std::numeric_limits<int>::max();
  CHECK(prior_count(largest, 1, one_size(largest, 8, 1, 0)) == 1);
  CHECK_THROWS_AS(prior_count(largest, largest, one_size(1, 8, 1, 0)), std::invalid_argument);
  CHECK_THROWS_AS(prior_count(1, 1, one_size(1, 8, largest, 0)), std::invalid_argument);

  std::vector<float> wrong(4 * 22);
  CHECK_THROWS_AS(prior_boxes(32, 32, faceboxes, wrong), std::invalid_argument);
}

TEST_CASE("decode_boxes: no offsets give the prior, others by hand") {
  const std::vector<float> priors{0.5f, 0.25f, 0.2f, 0.4f, 0.5f, 0.5f, 0.1f, 0.2f};
  const std::vector<float> loc{0, 0, 0, 0, 1, -2, 5 * std::log(2.0f), 5 * std::log(0.5f)};
  std::vector<float> boxes(8);
  decode_boxes(loc, priors, {}, boxes);
  const std::vector<float> expected{0.4f,  0.05f, 0.6f,  0.45f,
                                    0.41f, 0.41f, 0.61f, 0.51f};  // centre 0.51 0.46, 0.2 x 0.1
  for (std::size_t i = 0; i < 8; ++i) CHECK(boxes[i] == doctest::Approx(expected[i]).epsilon(1e-6));
}

TEST_CASE("decode_boxes: inverts SSD's encoding") {
  std::mt19937 random(6);
  std::uniform_real_distribution<double> position(0, 1), side(0.02, 0.8);
  const BoxVariances variances{0.15f, 0.3f};
  for (int i = 0; i < 500; ++i) {
    const double px = position(random), py = position(random), pw = side(random), ph = side(random);
    const double cx = position(random), cy = position(random), w = side(random), h = side(random);
    const std::vector<float> prior{static_cast<float>(px), static_cast<float>(py),
                                   static_cast<float>(pw), static_cast<float>(ph)};
    const double vc = variances.center, vs = variances.size;
    const std::vector<float> loc{
        static_cast<float>((cx - px) / pw / vc), static_cast<float>((cy - py) / ph / vc),
        static_cast<float>(std::log(w / pw) / vs), static_cast<float>(std::log(h / ph) / vs)};
    std::vector<float> box(4);
    decode_boxes(loc, prior, variances, box);
    REQUIRE(box[0] == doctest::Approx(cx - w / 2).epsilon(1e-5));
    REQUIRE(box[1] == doctest::Approx(cy - h / 2).epsilon(1e-5));
    REQUIRE(box[2] == doctest::Approx(cx + w / 2).epsilon(1e-5));
    REQUIRE(box[3] == doctest::Approx(cy + h / 2).epsilon(1e-5));
  }
}

TEST_CASE("decode_boxes: refuses arrays that do not fit together") {
  std::vector<float> four(4), eight(8), six(6);
  CHECK_THROWS_AS(decode_boxes(eight, four, {}, eight), std::invalid_argument);
  CHECK_THROWS_AS(decode_boxes(six, six, {}, six), std::invalid_argument);
  CHECK_THROWS_AS(decode_boxes(four, four, {}, eight), std::invalid_argument);
  CHECK_THROWS_AS(decode_boxes(four, four, {kNaN, 0.2f}, four), std::invalid_argument);
}

TEST_CASE("decode_candidates: exactly the rows above the threshold, as decode_boxes has them") {
  std::mt19937 random(7);
  for (int round = 0; round < 20; ++round) {
    const Output output = random_output(random);
    std::vector<float> boxes(output.loc.size());
    decode_boxes(output.loc, output.priors, {}, boxes);
    const std::vector<Candidate> candidates = candidates_of(output, 0.6f, 192.5, 128.25);
    std::size_t next = 0;
    for (std::size_t row = 0; row < boxes.size() / 4; ++row) {
      if (!(output.scores[2 * row + 1] > 0.6f)) continue;
      REQUIRE(next < candidates.size());
      const Candidate& c = candidates[next++];
      REQUIRE(c.prior == static_cast<std::int64_t>(row));
      REQUIRE(c.score == output.scores[2 * row + 1]);
      REQUIRE(c.x1 == static_cast<float>(boxes[4 * row] * 192.5));
      REQUIRE(c.y1 == static_cast<float>(boxes[4 * row + 1] * 128.25));
      REQUIRE(c.x2 == static_cast<float>(boxes[4 * row + 2] * 192.5));
      REQUIRE(c.y2 == static_cast<float>(boxes[4 * row + 3] * 128.25));
    }
    REQUIRE(next == candidates.size());
    REQUIRE(next > 0);
  }
}

TEST_CASE("decode_candidates: a score at the threshold is not above it") {
  const std::vector<float> loc(8), priors(8, 0.5f), scores{0.5f, std::nextafter(0.5f, 1.0f)};
  const auto candidates = decode_candidates(loc, scores.data(), 1, priors, {}, 0.5f, 1, 1);
  REQUIRE(candidates.size() == 1);
  CHECK(candidates[0].prior == 1);
  CHECK(decode_candidates({}, nullptr, 1, {}, {}, 0.5f, 1, 1).empty());
}

TEST_CASE("decode_candidates: refuses wrong sizes and a broken network's output") {
  const std::vector<float> loc(8), priors(8, 0.5f), scores(2, 0.9f);
  const auto run = [](const std::vector<float>& l, const float* s, std::size_t stride,
                      const std::vector<float>& p, float threshold, double scale_x,
                      double scale_y) {
    return decode_candidates(l, s, stride, p, {}, threshold, scale_x, scale_y);
  };
  const float* s = scores.data();
  CHECK(run(loc, s, 1, priors, 0.1f, 1, 1).size() == 2);
  CHECK_THROWS_AS(run(loc, nullptr, 1, priors, 0.1f, 1, 1), std::invalid_argument);
  CHECK_THROWS_AS(run(loc, s, 0, priors, 0.1f, 1, 1), std::invalid_argument);
  CHECK_THROWS_AS(run(loc, s, 1, std::vector<float>(4), 0.1f, 1, 1), std::invalid_argument);
  CHECK_THROWS_AS(run(loc, s, 1, priors, kNaN, 1, 1), std::invalid_argument);
  CHECK_THROWS_AS(run(loc, s, 1, priors, 0.1f, 0, 1), std::invalid_argument);
  CHECK_THROWS_AS(run(loc, s, 1, priors, 0.1f, 1, static_cast<double>(kInfinity)),
                  std::invalid_argument);

  for (std::size_t i = 0; i < 4; ++i) {
    std::vector<float> bad_loc = loc;
    bad_loc[i] = kNaN;
    CHECK_THROWS_AS(run(bad_loc, s, 1, priors, 0.1f, 1, 1), std::invalid_argument);
    CHECK(run(bad_loc, s, 1, priors, 0.95f, 1, 1).empty());  // nobody looks at it
  }
  std::vector<float> overflow = loc;
  overflow[2] = 1e6f;
  CHECK_THROWS_AS(run(overflow, s, 1, priors, 0.1f, 1, 1), std::invalid_argument);
  const std::vector<float> nan_score{0.0f, kNaN};
  CHECK_THROWS_AS(run(loc, nan_score.data(), 1, priors, 0.1f, 1, 1), std::invalid_argument);
}

TEST_CASE("detect: candidates, the best of them, nms") {
  std::mt19937 random(8);
  for (int round = 0; round < 20; ++round) {
    const Output output = random_output(random, round % 2 == 0 ? 5 : 0);
    const std::vector<Candidate> candidates = candidates_of(output, 0.3f);
    std::vector<float> boxes, scores;
    for (const Candidate& c : candidates) {
      boxes.insert(boxes.end(), {c.x1, c.y1, c.x2, c.y2});
      scores.push_back(c.score);
    }
    const auto keep = nms(boxes, scores, 0.3, 1.0f);
    const auto all = detections_of(output, 5000, 750);
    REQUIRE(all.size() == keep.size());
    REQUIRE(all.size() > 2);
    for (std::size_t i = 0; i < keep.size(); ++i) {
      const Candidate& expected = candidates[static_cast<std::size_t>(keep[i])];
      REQUIRE(all[i].prior == expected.prior);
      REQUIRE(all[i].x1 == expected.x1);
      REQUIRE(all[i].y2 == expected.y2);
      REQUIRE(all[i].score == expected.score);
    }

    // Worse boxes never change what becomes of better ones.
    const auto few = detections_of(output, 10, 750);
    REQUIRE(few.size() <= 10);
    REQUIRE(!few.empty());
    for (std::size_t i = 0; i < few.size(); ++i) REQUIRE(few[i].prior == all[i].prior);

    const auto best = detections_of(output, 5000, 2);
    REQUIRE(best.size() == 2);
    for (std::size_t i = 0; i < 2; ++i) REQUIRE(best[i].prior == all[i].prior);
    REQUIRE(detections_of(output, 0, 750).empty());
    REQUIRE(detections_of(output, 5000, 0).empty());
  }
}
