#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "threedfa/span.hpp"

namespace threedfa {

/// Square priors of one side length in each cell of one grid.
struct PriorSize {
  float size = 0;      ///< side in pixels, > 0
  int density = 1;     ///< density x density priors a cell, >= 1
  float offset = 0.5;  ///< first centre in a cell, in cells; the next ones follow at 1/density
};

/// One output map of the detector: a grid of ceil(height/step) x ceil(width/step) cells.
struct PriorLevel {
  int step = 0;  ///< pixels a cell, >= 1
  std::vector<PriorSize> sizes;
};

/// The priors of an SSD-style detector (Liu et al. 2016; densities: FaceBoxes, Zhang et al. 2017).
struct PriorConfig {
  std::vector<PriorLevel> levels;

  /// The configuration of FaceBoxes: 32 x 16, 64 x 4 and 128 in cells of 32 pixels, 256 in cells of
  /// 64, 512 in cells of 128.
  static PriorConfig faceboxes();
};

/// How far the network's offsets are scaled: centre and size variance of SSD.
struct BoxVariances {
  float center = 0.1f;
  float size = 0.2f;
};

/// Number of priors for an image of the given size.
/// @throws std::invalid_argument if height or width < 1, or the configuration is not valid (no
/// levels
///         or sizes, a value out of range) or gives more priors than memory can hold
std::size_t prior_count(int height, int width, const PriorConfig& config);

/// Writes the priors, `prior_count` x 4: cx, cy, w, h relative to the image. Order: levels, rows of
/// cells, cells, sizes, rows of centres within the cell, centres.
void prior_boxes(int height, int width, const PriorConfig& config, Span<float> out);

/// SSD decoding: P x 4 network offsets and P x 4 priors to P x 4 x1 y1 x2 y2, relative.
void decode_boxes(Span<const float> loc, Span<const float> priors, BoxVariances variances,
                  Span<float> out);

/// A decoded box that passed the score threshold.
struct Candidate {
  float x1, y1, x2, y2;  ///< pixels
  float score;
  std::int64_t prior;  ///< its row in the network's output
};

/// Decodes only the rows whose score is above `score_threshold` (strictly) and scales them to
/// pixels: x times `scale_x`, y times `scale_y`.
/// @param loc    P x 4
/// @param scores P values, `score_stride` floats apart (2 for the second column of a P x 2 softmax)
/// @param priors P x 4
/// @return candidates in order of their rows
/// @throws std::invalid_argument on sizes that do not match, and where a score is NaN or a
/// candidate's
///         box is not finite: a broken network must not look like a picture without faces
std::vector<Candidate> decode_candidates(Span<const float> loc, const float* scores,
                                         std::size_t score_stride, Span<const float> priors,
                                         BoxVariances variances, float score_threshold,
                                         double scale_x, double scale_y);

/// Everything between a detector's raw output and its detections: decode_candidates, the best
/// `top_k`, nms, the best `keep_top_k`, best first. Equal scores: the later row is the better.
std::vector<Candidate> detect(Span<const float> loc, const float* scores, std::size_t score_stride,
                              Span<const float> priors, BoxVariances variances,
                              float score_threshold, double scale_x, double scale_y,
                              double iou_threshold, float nms_offset, std::size_t top_k,
                              std::size_t keep_top_k);

}  // namespace threedfa
