#include "threedfa/roi.hpp"

#include <algorithm>
#include <cmath>
#include <string>

namespace threedfa {
namespace {

Roi square(double center_x, double center_y, double side) {
  Roi roi;
  roi.x1 = center_x - side / 2;
  roi.y1 = center_y - side / 2;
  roi.x2 = roi.x1 + side;
  roi.y2 = roi.y1 + side;
  return roi;
}

bool is_finite(const Roi& roi) {
  return std::isfinite(roi.x1) && std::isfinite(roi.y1) && std::isfinite(roi.x2) &&
         std::isfinite(roi.y2);
}

}  // namespace

Roi roi_from_box(double x1, double y1, double x2, double y2, const BoxRoiRule& rule) {
  require(std::isfinite(rule.scale) && rule.scale > 0 && std::isfinite(rule.shift_y), "rule",
          "a finite scale > 0 and a finite shift_y", rule.scale, " and ", rule.shift_y);
  const double mean_side = (x2 - x1 + y2 - y1) / 2;  // also NaN or infinite if a corner is
  const auto require_box = [=](bool ok, const auto& expected) {
    require(ok, "box", expected, x1, " ", y1, " ", x2, " ", y2);
  };
  require_box(std::isfinite(mean_side) && x2 > x1 && y2 > y1,
              "finite x1 y1 x2 y2 with x1 < x2 and y1 < y2");

  double side = mean_side * rule.scale;
  if (rule.integer_side) side = std::trunc(side);
  if (!(side > 0)) {
    require_box(false, "a box large enough for a region of at least one pixel (" +
                           std::to_string(1 / rule.scale) + " pixels a side)");
  }
  const Roi roi = square(x2 - (x2 - x1) / 2, y2 - (y2 - y1) / 2 + mean_side * rule.shift_y, side);
  require_box(is_finite(roi), "coordinates within an image's range");
  return roi;
}

Roi roi_from_landmarks(Span<const float> points, int stride, double scale) {
  require(stride >= 2, "stride", "2 or more (x and y)", stride);
  require(std::isfinite(scale) && scale > 0, "scale", "a finite number > 0", scale);
  const std::size_t step = static_cast<std::size_t>(stride);
  require(points.size() % step == 0 && points.size() / step >= 2, "points", "two or more points",
          points.size(), " values, ", stride, " of them for each point");

  float min_x = points[0], max_x = points[0], min_y = points[1], max_y = points[1];
  for (std::size_t i = 0; i < points.size(); i += step) {
    const float x = points[i], y = points[i + 1];
    if (!(std::isfinite(x) && std::isfinite(y))) {
      require(false, "points", "finite coordinates", "x ", x, ", y ", y, " at point ", i / step);
    }
    min_x = std::min(min_x, x);
    max_x = std::max(max_x, x);
    min_y = std::min(min_y, y);
    max_y = std::max(max_y, y);
  }
  const double left = min_x, right = max_x, top = min_y, bottom = max_y;
  const double longer_side = std::max(right - left, bottom - top);
  require(longer_side > 0, "points", "points at two or more places", "all at x ", left, ", y ",
          top);
  const Roi roi = square((left + right) / 2, (top + bottom) / 2, scale * longer_side);
  require(is_finite(roi), "scale", "a region of finite size", scale);
  return roi;
}

}  // namespace threedfa
