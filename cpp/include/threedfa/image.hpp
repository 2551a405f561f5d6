#pragma once

#include <cstddef>
#include <cstdint>

namespace threedfa {

/// A read-only view of an interleaved 8-bit image. Pixel (x, y), channel c is
/// `data[y * row_stride + x * channels + c]`. The memory must outlive the view.
struct ImageView {
  const std::uint8_t* data = nullptr;
  int height = 0;
  int width = 0;
  int channels = 3;
  std::ptrdiff_t row_stride = 0;  ///< bytes from one row to the next
};

}  // namespace threedfa
