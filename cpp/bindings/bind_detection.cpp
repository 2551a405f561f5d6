#include <pybind11/stl.h>

#include <tuple>

#include "arrays.hpp"
#include "register.hpp"
#include "threedfa/nms.hpp"
#include "threedfa/prior_box.hpp"

namespace threedfa::bindings {
namespace {

/// ((step, ((size, density, offset), ...)), ...)
using Levels = std::vector<std::tuple<int, std::vector<std::tuple<float, int, float>>>>;

PriorConfig to_config(const Levels& levels) {
  PriorConfig config;
  for (const auto& [step, sizes] : levels) {
    PriorLevel level{step, {}};
    for (const auto& [size, density, offset] : sizes)
      level.sizes.push_back({size, density, offset});
    config.levels.push_back(std::move(level));
  }
  return config;
}

Array<std::int64_t> py_nms(py::handle boxes_in, py::handle scores_in, double iou_threshold,
                           float offset) {
  const auto boxes = reals(boxes_in, "boxes", {kAny, 4});
  const auto scores = reals(scores_in, "scores", {boxes.shape(0)});
  std::vector<std::int64_t> keep;
  {
    py::gil_scoped_release release;
    keep = nms(view(boxes), view(scores), iou_threshold, offset);
  }
  return Array<std::int64_t>(static_cast<py::ssize_t>(keep.size()), keep.data());
}

Array<float> py_prior_boxes(int height, int width, const Levels& levels) {
  const PriorConfig config = to_config(levels);
  Array<float> out({static_cast<py::ssize_t>(prior_count(height, width, config)), py::ssize_t{4}});
  const auto target = writable(out);
  py::gil_scoped_release release;
  prior_boxes(height, width, config, target);
  return out;
}

Array<float> py_decode_boxes(py::handle loc_in, py::handle priors_in,
                             std::pair<float, float> variances) {
  const auto loc = reals(loc_in, "loc", {kAny, 4});
  const auto priors = reals(priors_in, "priors", {loc.shape(0), 4});
  Array<float> out(shape_of(loc));
  const auto target = writable(out);
  {
    py::gil_scoped_release release;
    decode_boxes(view(loc), view(priors), {variances.first, variances.second}, target);
  }
  check_finite(out, "loc");  // sizes grow exponentially with it
  return out;
}

std::pair<Array<float>, Array<float>> py_detect(
    py::handle loc_in, py::handle conf_in, py::handle priors_in, std::pair<float, float> variances,
    float score_threshold, double scale_x, double scale_y, double iou_threshold, float nms_offset,
    std::size_t top_k, std::size_t keep_top_k) {
  // Only rows of candidates are looked at, and checked; to read them all would take longer.
  const auto loc = numbers(loc_in, "loc", {kAny, 4});
  const auto conf = reals(conf_in, "conf", {loc.shape(0), 2});
  const auto priors = numbers(priors_in, "priors", {loc.shape(0), 4});
  std::vector<Candidate> found;
  {
    py::gil_scoped_release release;
    found = detect(view(loc), conf.data() + 1, 2, view(priors), {variances.first, variances.second},
                   score_threshold, scale_x, scale_y, iou_threshold, nms_offset, top_k, keep_top_k);
  }
  const auto count = static_cast<py::ssize_t>(found.size());
  Array<float> boxes({count, py::ssize_t{4}}), scores(count);
  float* box = boxes.mutable_data();
  float* score = scores.mutable_data();
  for (const Candidate& c : found) {
    *box++ = c.x1;
    *box++ = c.y1;
    *box++ = c.x2;
    *box++ = c.y2;
    *score++ = c.score;
  }
  return {std::move(boxes), std::move(scores)};
}

}  // namespace

void register_detection(py::module_& m) {
  m.def("nms", &py_nms, py::arg("boxes"), py::arg("scores"), py::arg("iou_threshold"),
        py::kw_only(), py::arg("offset") = 0.0f);
  m.def("prior_boxes", &py_prior_boxes, py::arg("height"), py::arg("width"), py::arg("levels"));
  m.def("decode_boxes", &py_decode_boxes, py::arg("loc"), py::arg("priors"), py::arg("variances"));
  m.def("detect", &py_detect, py::arg("loc"), py::arg("conf"), py::arg("priors"), py::kw_only(),
        py::arg("variances"), py::arg("score_threshold"), py::arg("scale_x"), py::arg("scale_y"),
        py::arg("iou_threshold"), py::arg("nms_offset"), py::arg("top_k"), py::arg("keep_top_k"));
}

}  // namespace threedfa::bindings
