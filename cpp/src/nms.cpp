#include "threedfa/nms.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>

#include "simd/loops.hpp"

namespace threedfa {
namespace {

struct Box {
  float x1, y1, x2, y2, area;
};

/// The boxes kept so far, one array per field so that the scan over them is a run of loads.
class KeptBoxes {
 public:
  void reserve(std::size_t n) {
    for (auto* field : {&x1_, &y1_, &x2_, &y2_, &area_}) field->reserve(n);
  }

  void push(const Box& box) {
    x1_.push_back(box.x1);
    y1_.push_back(box.y1);
    x2_.push_back(box.x2);
    y2_.push_back(box.y2);
    area_.push_back(box.area);
  }

  /// Whether the overlap of `box` with any of these is at least `threshold`.
  bool overlap(const Box& box, float threshold, float offset) const {
    const float* const fields[] = {x1_.data(), y1_.data(), x2_.data(), y2_.data(), area_.data()};
    const float values[] = {box.x1, box.y1, box.x2, box.y2, box.area};
    return simd::loops().overlaps_any(fields, x1_.size(), values, threshold, offset);
  }

 private:
  std::vector<float> x1_, y1_, x2_, y2_, area_;
};

void require_finite(const char* name, Span<const float> values) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      require(false, name, "finite values; drop the rows that are not", values[i], " at element ",
              i);
    }
  }
}

/// The least float that is not below `value`: comparing a float with it gives the same answer as
/// comparing that float, widened, with `value`.
float round_up_to_float(double value) {
  const float nearest = static_cast<float>(value);
  return static_cast<double>(nearest) < value
             ? std::nextafter(nearest, std::numeric_limits<float>::infinity())
             : nearest;
}

/// Whole numbers in the order of finite floats; 0 and -0 give the same.
std::uint32_t ordered(float value) {
  const float sum = value + 0.0f;  // 0 for -0
  std::uint32_t bits;
  std::memcpy(&bits, &sum, sizeof bits);
  constexpr std::uint32_t kSign = 0x80000000u;
  return (bits & kSign) != 0 ? ~bits : bits | kSign;
}

/// Indices by falling score, equal scores by falling index.
std::vector<std::int64_t> visiting_order(Span<const float> scores) {
  // Score and index in one number: sorting takes half as long as with a look at the scores.
  std::vector<std::uint64_t> keys(scores.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    keys[i] = std::uint64_t{ordered(scores[i])} << 32 | i;
  }
  std::sort(keys.begin(), keys.end(), std::greater<>());
  std::vector<std::int64_t> order(keys.size());
  std::transform(keys.begin(), keys.end(), order.begin(), [](std::uint64_t key) {
    return static_cast<std::int64_t>(key & std::numeric_limits<std::uint32_t>::max());
  });
  return order;
}

}  // namespace

std::vector<std::int64_t> nms(Span<const float> boxes, Span<const float> scores,
                              double iou_threshold, float offset) {
  require(boxes.size() % 4 == 0 && boxes.size() / 4 == scores.size(), "boxes",
          "4 values for each score", boxes.size(), " values for ", scores.size(), " scores");
  require(scores.size() <= std::numeric_limits<std::uint32_t>::max(), "scores", "fewer than 2^32",
          scores.size());
  require(iou_threshold >= 0.0 && iou_threshold <= 1.0, "iou_threshold", "a number in 0..1",
          iou_threshold);
  require(std::isfinite(offset) && offset >= 0.0f, "offset",
          "0 for continuous coordinates or 1 for +1 pixel areas", offset);
  require_finite("boxes", boxes);
  require_finite("scores", scores);

  // A box falls exactly if a better one that was kept overlaps it, and the overlap is symmetric to
  // the last bit; so each box is held against the kept ones, which are few and lie close together.
  const float threshold = round_up_to_float(iou_threshold);
  std::vector<std::int64_t> order = visiting_order(scores);
  KeptBoxes kept;
  kept.reserve(std::min<std::size_t>(order.size(), 256));
  std::size_t count = 0;
  for (const std::int64_t index : order) {
    const float* b = boxes.data() + 4 * index;
    const Box box{b[0], b[1], b[2], b[3], (b[2] - b[0] + offset) * (b[3] - b[1] + offset)};
    if (kept.overlap(box, threshold, offset)) continue;
    kept.push(box);
    order[count++] = index;
  }
  order.resize(count);
  return order;
}

}  // namespace threedfa
