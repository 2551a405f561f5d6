#pragma once

#include <cstdint>

#include "simd/loops.hpp"
#include "threedfa/rasterizer.hpp"
#include "threedfa/span.hpp"

namespace threedfa {

/// As `rasterize`, but attributes are painted to bytes; what is not covered stays.
/// @param bytes as wide as the buffers, and not null
void rasterize_bytes(Span<const float> vertices, Span<const std::int32_t> triangles,
                     Span<const float> attributes, int channels, const RasterBuffers& buffers,
                     const simd::ByteTarget& bytes);

}  // namespace threedfa
