#include "box_loop.hpp"

#include <algorithm>
#include <cmath>

void box_loop(const float* vertices, const std::int32_t* triangles, std::size_t triangle_count,
              int size, float* depth, std::int32_t* triangle, float* barycentric) {
  const auto low = [](float x) { return std::max(0, static_cast<int>(std::ceil(x))); };
  const auto high = [size](float x) { return std::min(size - 1, static_cast<int>(std::floor(x))); };
  for (std::size_t t = 0; t < triangle_count; ++t) {
    const float* const a = vertices + 3 * static_cast<std::size_t>(triangles[3 * t]);
    const float* const b = vertices + 3 * static_cast<std::size_t>(triangles[3 * t + 1]);
    const float* const c = vertices + 3 * static_cast<std::size_t>(triangles[3 * t + 2]);
    const float area = (b[1] - c[1]) * (a[0] - c[0]) + (c[0] - b[0]) * (a[1] - c[1]);
    if (area == 0.0f) continue;
    const int x_last = high(std::max({a[0], b[0], c[0]}));
    const int y_last = high(std::max({a[1], b[1], c[1]}));
    for (int y = low(std::min({a[1], b[1], c[1]})); y <= y_last; ++y) {
      for (int x = low(std::min({a[0], b[0], c[0]})); x <= x_last; ++x) {
        const float px = static_cast<float>(x), py = static_cast<float>(y);
        const float w0 = ((b[1] - c[1]) * (px - c[0]) + (c[0] - b[0]) * (py - c[1])) / area;
        const float w1 = ((c[1] - a[1]) * (px - c[0]) + (a[0] - c[0]) * (py - c[1])) / area;
        const float w2 = 1 - w0 - w1;
        if (w0 < 0 || w1 < 0 || w2 < 0) continue;
        const float z = w0 * a[2] + w1 * b[2] + w2 * c[2];
        const auto i = static_cast<std::size_t>(y * size + x);
        if (!(z > depth[i])) continue;
        depth[i] = z;
        triangle[i] = static_cast<std::int32_t>(t);
        barycentric[3 * i] = w0;
        barycentric[3 * i + 1] = w1;
        barycentric[3 * i + 2] = w2;
      }
    }
  }
}
