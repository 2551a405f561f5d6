// Times kernels against textbook loops in the same run, after checking that both give the same
// answer. One thread; run it once for each of THREEDFA_SIMD=scalar, avx2, avx512 to compare builds.

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <threedfa/threedfa.hpp>
#include <vector>

#include "simd/loops.hpp"

namespace {

using Clock = std::chrono::steady_clock;
using threedfa::Span;

/// Median time of a call in milliseconds, after one that does not count.
template <class Function>
double median_ms(Function function, int runs = 31) {
  function();
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) {
    const auto start = Clock::now();
    function();
    times.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  }
  std::nth_element(times.begin(), times.begin() + runs / 2, times.end());
  return times[static_cast<std::size_t>(runs / 2)];
}

void report(const char* name, double ours, double theirs, const char* alternative) {
  std::printf("%-34s %8.3f ms   %8.3f ms   %6.2f x   %s\n", name, ours, theirs, theirs / ours,
              alternative);
}

void require_same(bool same, const char* name) {
  if (same) return;
  std::fprintf(stderr, "%s: the answers differ\n", name);
  std::exit(1);
}

/// The O(n^2) loop of Fast R-CNN's cpu_nms, on boxes sorted by falling score.
std::vector<std::int64_t> textbook_nms(const std::vector<float>& boxes, std::size_t count,
                                       float threshold) {
  std::vector<std::int64_t> keep;
  std::vector<char> gone(count);
  for (std::size_t i = 0; i < count; ++i) {
    if (gone[i]) continue;
    keep.push_back(static_cast<std::int64_t>(i));
    const float* a = boxes.data() + 4 * i;
    const float area = (a[2] - a[0] + 1) * (a[3] - a[1] + 1);
    for (std::size_t j = i + 1; j < count; ++j) {
      if (gone[j]) continue;
      const float* b = boxes.data() + 4 * j;
      const float width = std::max(0.0f, std::min(a[2], b[2]) - std::max(a[0], b[0]) + 1);
      const float height = std::max(0.0f, std::min(a[3], b[3]) - std::max(a[1], b[1]) + 1);
      const float overlap = width * height;
      const float other = (b[2] - b[0] + 1) * (b[3] - b[1] + 1);
      if (overlap / (area + other - overlap) >= threshold) gone[j] = 1;
    }
  }
  return keep;
}

void benchmark_nms(std::mt19937& generator) {
  constexpr std::size_t kCount = 5000;
  std::uniform_real_distribution<float> place(0, 1000), side(10, 100);
  std::vector<float> boxes, scores;
  for (std::size_t i = 0; i < kCount; ++i) {
    const float x = place(generator), y = place(generator);
    boxes.insert(boxes.end(), {x, y, x + side(generator), y + side(generator)});
    scores.push_back(1.0f - static_cast<float>(i) / kCount);
  }
  std::vector<std::int64_t> ours, theirs;
  const double fast = median_ms([&] { ours = threedfa::nms(boxes, scores, 0.3f, 1.0f); });
  const double slow = median_ms([&] { theirs = textbook_nms(boxes, kCount, 0.3f); });
  require_same(ours == theirs, "nms");
  report("nms, 5000 uniform boxes", fast, slow, "textbook O(n^2) loop");
}

void benchmark_reconstruction(std::mt19937& generator) {
  constexpr std::size_t kRows = 3 * 38365, kModes = 50;
  std::normal_distribution<float> pick;
  std::vector<float> mean(kRows), basis(kRows * kModes), coefficients(8 * kModes);
  for (auto* values : {&mean, &basis, &coefficients}) {
    for (float& value : *values) value = pick(generator);
  }
  threedfa::LinearModel model{mean, {}};
  for (std::size_t k = 0; k < kModes; ++k) {
    model.basis.emplace_back(basis.data() + k * kRows, kRows);
  }
  std::vector<float> ours(8 * kRows), theirs(kRows);
  const Span<float> one(ours.data(), kRows);
  const Span<const float> first(coefficients.data(), kModes);
  const double single = median_ms([&] { model.evaluate(first, one); });

  float total = 0;  // what the machine reads at best, in one stream with independent sums
  const double stream = median_ms([&] {
    std::array<float, 64> sums{};
    for (std::size_t i = 0; i + sums.size() <= basis.size(); i += sums.size()) {
      for (std::size_t j = 0; j < sums.size(); ++j) sums[j] += basis[i + j];
    }
    total += sums[0];
  });
  const double textbook = median_ms([&] {
    for (std::size_t i = 0; i < kRows; ++i) {
      float sum = mean[i];
      for (std::size_t k = 0; k < kModes; ++k) sum += coefficients[k] * basis[k * kRows + i];
      theirs[i] = sum;
    }
  });
  require_same(std::equal(theirs.begin(), theirs.end(), ours.begin()) && !std::isnan(total),
               "reconstruction");
  report("reconstruction, 38365 x 50", single, textbook, "textbook loop");
  report("reconstruction, 38365 x 50", single, stream, "plain read of the same bytes");
  const double eight = median_ms([&] { model.evaluate_many(coefficients, 8, ours); });
  report("reconstruction, 8 faces", eight, 8 * single, "one by one");
}

void benchmark_preprocessing(std::mt19937& generator) {
  constexpr int kHeight = 1080, kWidth = 1920, kOutHeight = 607, kOutWidth = 1080;
  std::uniform_int_distribution<int> pick(0, 255);
  std::vector<std::uint8_t> pixels(std::size_t{3} * kHeight * kWidth);
  for (auto& value : pixels) value = static_cast<std::uint8_t>(pick(generator));
  const threedfa::ImageView image{pixels.data(), kHeight, kWidth, 3, 3 * kWidth};
  const threedfa::Normalization norm{{104, 117, 123}, {1, 1, 1}, true};
  std::vector<float> ours(std::size_t{3} * kOutHeight * kOutWidth), theirs(ours.size());
  const double fast =
      median_ms([&] { threedfa::resize_normalize(image, kOutHeight, kOutWidth, norm, ours); }, 15);
  std::vector<std::uint8_t> small(ours.size());
  const double slow = median_ms(
      [&] {
        threedfa::crop_resize(image, {0, 0, kWidth, kHeight}, kOutHeight, kOutWidth, small);
        const std::size_t plane = small.size() / 3;
        for (std::size_t c = 0; c < 3; ++c) {
          for (std::size_t i = 0; i < plane; ++i) {
            theirs[c * plane + i] = static_cast<float>(small[3 * i + 2 - c]) - norm.mean[c];
          }
        }
      },
      15);
  require_same(ours == theirs, "pre-processing");
  report("resize and normalise, 1920 x 1080", fast, slow, "resize, then convert");
}

}  // namespace

int main() {
  std::mt19937 generator(1);
  std::printf("loops: %s\n%-34s %11s   %11s\n", threedfa::simd::loops().name, "", "ours", "other");
  benchmark_nms(generator);
  benchmark_reconstruction(generator);
  benchmark_preprocessing(generator);
  return 0;
}
