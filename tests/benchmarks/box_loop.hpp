#pragma once

#include <cstddef>
#include <cstdint>

/// The textbook rasterizer: each pixel of each triangle's box, tested by its barycentric weights in
/// float32. Vertices V x 3, triangles T x 3; a picture of `size` x `size` pixels, whose barycentric
/// weights are three a pixel.
void box_loop(const float* vertices, const std::int32_t* triangles, std::size_t triangle_count,
              int size, float* depth, std::int32_t* triangle, float* barycentric);
