#include "threedfa/prior_box.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "threedfa/nms.hpp"

namespace threedfa {
namespace {

struct Corners {
  float x1, y1, x2, y2;
};

Corners decode(const float* loc, const float* prior, BoxVariances variances) {
  const float width = prior[2] * std::exp(loc[2] * variances.size);
  const float height = prior[3] * std::exp(loc[3] * variances.size);
  const float x1 = prior[0] + loc[0] * variances.center * prior[2] - width / 2;
  const float y1 = prior[1] + loc[1] * variances.center * prior[3] - height / 2;
  return {x1, y1, x1 + width, y1 + height};
}

void require_rows(Span<const float> loc, Span<const float> priors, BoxVariances variances) {
  require(loc.size() % 4 == 0, "loc", "rows of 4 values", loc.size(), " values");
  require(priors.size() == loc.size(), "priors",
          "one for each row of loc; make them for the size of the network's input",
          priors.size() / 4, " for ", loc.size() / 4, " rows");
  require(std::isfinite(variances.center) && std::isfinite(variances.size), "variances",
          "finite numbers", variances.center, " and ", variances.size);
}

std::size_t multiply(std::size_t a, std::size_t b) {
  require(b == 0 || a <= std::numeric_limits<std::size_t>::max() / b, "config",
          "a number of priors that fits into memory; use larger steps or a smaller image", a,
          " times ", b);
  return a * b;
}

std::size_t cells(int length, int step) {
  return static_cast<std::size_t>((length - 1) / step + 1);
}

void validate(int height, int width, const PriorConfig& config) {
  require(height >= 1 && width >= 1, "image size", "height and width of at least 1", height, " x ",
          width);
  require(!config.levels.empty(), "config", "at least one level", "none");
  for (const PriorLevel& level : config.levels) {
    require(level.step >= 1, "step", "1 pixel or more", level.step);
    require(!level.sizes.empty(), "level", "at least one size", "none");
    for (const PriorSize& size : level.sizes) {
      require(std::isfinite(size.size) && size.size > 0, "size", "a finite number of pixels > 0",
              size.size);
      require(size.density >= 1, "density", "1 or more", size.density);
      require(std::isfinite(size.offset), "offset", "a finite number", size.offset);
    }
  }
}

}  // namespace

PriorConfig PriorConfig::faceboxes() {
  return {{{32, {{32, 4, 0}, {64, 2, 0}, {128, 1, 0.5}}},
           {64, {{256, 1, 0.5}}},
           {128, {{512, 1, 0.5}}}}};
}

std::size_t prior_count(int height, int width, const PriorConfig& config) {
  validate(height, width, config);
  std::size_t bytes = 0;  // what must not overflow is the size of the array
  for (const PriorLevel& level : config.levels) {
    const std::size_t grid = multiply(cells(height, level.step), cells(width, level.step));
    for (const PriorSize& size : level.sizes) {
      const std::size_t density = static_cast<std::size_t>(size.density);
      const std::size_t more =
          multiply(multiply(grid, multiply(density, density)), 4 * sizeof(float));
      multiply(2, std::max(bytes, more));  // their sum cannot overflow
      bytes += more;
    }
  }
  return bytes / (4 * sizeof(float));
}

void prior_boxes(int height, int width, const PriorConfig& config, Span<float> out) {
  require_size("out", 4 * prior_count(height, width, config), out.size());
  float* prior = out.data();
  for (const PriorLevel& level : config.levels) {
    const std::size_t rows = cells(height, level.step), columns = cells(width, level.step);
    // Centres are computed in double precision and rounded once.
    const double step = level.step;
    for (std::size_t row = 0; row < rows; ++row) {
      for (std::size_t column = 0; column < columns; ++column) {
        for (const PriorSize& size : level.sizes) {
          const double pitch = 1.0 / size.density;
          const float w = static_cast<float>(static_cast<double>(size.size) / width);
          const float h = static_cast<float>(static_cast<double>(size.size) / height);
          for (int i = 0; i < size.density; ++i) {
            const double cy = static_cast<double>(row) + size.offset + i * pitch;
            for (int j = 0; j < size.density; ++j) {
              const double cx = static_cast<double>(column) + size.offset + j * pitch;
              prior[0] = static_cast<float>(cx * step / width);
              prior[1] = static_cast<float>(cy * step / height);
              prior[2] = w;
              prior[3] = h;
              prior += 4;
            }
          }
        }
      }
    }
  }
}

void decode_boxes(Span<const float> loc, Span<const float> priors, BoxVariances variances,
                  Span<float> out) {
  require_rows(loc, priors, variances);
  require_size("out", loc.size(), out.size());
  for (std::size_t i = 0; i < loc.size(); i += 4) {
    const Corners box = decode(loc.data() + i, priors.data() + i, variances);
    out[i] = box.x1;
    out[i + 1] = box.y1;
    out[i + 2] = box.x2;
    out[i + 3] = box.y2;
  }
}

std::vector<Candidate> decode_candidates(Span<const float> loc, const float* scores,
                                         std::size_t score_stride, Span<const float> priors,
                                         BoxVariances variances, float score_threshold,
                                         double scale_x, double scale_y) {
  require_rows(loc, priors, variances);
  require(loc.empty() || scores != nullptr, "scores", "one for each row of loc", "none");
  require(score_stride >= 1, "score_stride", "1 or more", score_stride);
  require(!std::isnan(score_threshold), "score_threshold", "a number", "NaN");
  require(std::isfinite(scale_x) && std::isfinite(scale_y) && scale_x > 0 && scale_y > 0,
          "scale_x, scale_y", "finite numbers > 0", scale_x, " and ", scale_y);

  std::vector<Candidate> candidates;
  for (std::size_t row = 0; row < loc.size() / 4; ++row) {
    const float score = scores[row * score_stride];
    if (score <= score_threshold) continue;  // false for NaN, which must not pass as "no face"
    const Corners box = decode(loc.data() + 4 * row, priors.data() + 4 * row, variances);
    const Candidate candidate{static_cast<float>(box.x1 * scale_x),
                              static_cast<float>(box.y1 * scale_y),
                              static_cast<float>(box.x2 * scale_x),
                              static_cast<float>(box.y2 * scale_y),
                              score,
                              static_cast<std::int64_t>(row)};
    // A width of exp(-infinity) would be finite.
    if (!(std::isfinite(loc[4 * row + 2]) && std::isfinite(loc[4 * row + 3]) &&
          std::isfinite(score) && std::isfinite(candidate.x1) && std::isfinite(candidate.y1) &&
          std::isfinite(candidate.x2) && std::isfinite(candidate.y2))) {
      require(false, "network output", "a finite score and box; check the network and its input",
              "score ", score, ", offsets ", loc[4 * row], " ", loc[4 * row + 1], " ",
              loc[4 * row + 2], " ", loc[4 * row + 3], " in row ", row);
    }
    candidates.push_back(candidate);
  }
  return candidates;
}

std::vector<Candidate> detect(Span<const float> loc, const float* scores, std::size_t score_stride,
                              Span<const float> priors, BoxVariances variances,
                              float score_threshold, double scale_x, double scale_y,
                              double iou_threshold, float nms_offset, std::size_t top_k,
                              std::size_t keep_top_k) {
  std::vector<Candidate> candidates = decode_candidates(
      loc, scores, score_stride, priors, variances, score_threshold, scale_x, scale_y);
  if (candidates.size() > top_k) {
    // Equal scores by falling row, as nms visits them; then back to the order of rows, on which
    // nms's own treatment of equal scores rests.
    std::nth_element(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(top_k),
                     candidates.end(), [](const Candidate& a, const Candidate& b) {
                       return a.score != b.score ? a.score > b.score : a.prior > b.prior;
                     });
    candidates.resize(top_k);
    std::sort(candidates.begin(), candidates.end(),
              [](const Candidate& a, const Candidate& b) { return a.prior < b.prior; });
  }

  std::vector<float> boxes, box_scores;
  boxes.reserve(4 * candidates.size());
  box_scores.reserve(candidates.size());
  for (const Candidate& c : candidates) {
    boxes.insert(boxes.end(), {c.x1, c.y1, c.x2, c.y2});
    box_scores.push_back(c.score);
  }
  const std::vector<std::int64_t> keep = nms(boxes, box_scores, iou_threshold, nms_offset);

  std::vector<Candidate> detections;
  for (std::size_t i = 0; i < std::min(keep.size(), keep_top_k); ++i) {
    detections.push_back(candidates[static_cast<std::size_t>(keep[i])]);
  }
  return detections;
}

}  // namespace threedfa
