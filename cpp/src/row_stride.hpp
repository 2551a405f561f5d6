#pragma once

#include <cstddef>
#include <cstdlib>
#include <string>

#include "threedfa/span.hpp"

namespace threedfa {

/// Throws std::invalid_argument unless rows of `row_bytes` do not overlap; upside down is fine.
inline void require_row_stride(const char* name, int height, std::ptrdiff_t row_bytes,
                               std::ptrdiff_t row_stride) {
  if (height == 1 || std::abs(row_stride) >= row_bytes) return;
  require(false, name, "at least " + std::to_string(row_bytes) + " bytes", row_stride);
}

}  // namespace threedfa
