// Overlaps of boxes. Part of loops.inl.

/// How many of `count` boxes overlap; without a branch, for whole vectors. Without the quotient it
/// may be more, if `threshold` is a little too low.
template <bool kQuotient>
inline int overlapping(const float* __restrict x1, const float* __restrict y1,
                       const float* __restrict x2, const float* __restrict y2,
                       const float* __restrict area, std::size_t count, const float* box,
                       float threshold, float offset) {
  const float bx1 = box[0], by1 = box[1], bx2 = box[2], by2 = box[3], box_area = box[4];
  int found = 0;
  for (std::size_t k = 0; k < count; ++k) {
    const float left = x1[k] > bx1 ? x1[k] : bx1;
    const float top = y1[k] > by1 ? y1[k] : by1;
    const float right = x2[k] < bx2 ? x2[k] : bx2;
    const float bottom = y2[k] < by2 ? y2[k] : by2;
    float width = right - left + offset;
    float height = bottom - top + offset;
    width = width > 0.0f ? width : 0.0f;
    height = height > 0.0f ? height : 0.0f;
    const float intersection = width * height;
    const float united = area[k] + box_area - intersection;
    if (kQuotient) {
      found +=
          static_cast<int>(united > 0.0f) & static_cast<int>(intersection / united >= threshold);
    } else {
      constexpr float kTiny = 1e-30f;  // products of less may vanish
      found +=
          static_cast<int>(united < kTiny) | static_cast<int>(intersection >= threshold * united);
    }
  }
  return found;
}

bool overlaps_any(const float* const* fields, std::size_t count, const float* box, float threshold,
                  float offset) {
  constexpr std::size_t kBlock = 64;  // boxes between two looks at the result
  // Divisions take most of the time, and few boxes come near the threshold.
  const float low = threshold * 0.999999f;
  for (std::size_t k = 0; k < count; k += kBlock) {
    const std::size_t size = count - k < kBlock ? count - k : kBlock;
    const float *const x1 = fields[0] + k, *const y1 = fields[1] + k, *const x2 = fields[2] + k,
                       *const y2 = fields[3] + k, *const area = fields[4] + k;
    if (low > 0.0f && overlapping<false>(x1, y1, x2, y2, area, size, box, low, offset) == 0) {
      continue;
    }
    if (overlapping<true>(x1, y1, x2, y2, area, size, box, threshold, offset) != 0) return true;
  }
  return false;
}
