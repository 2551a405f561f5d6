#pragma once

#include <array>

#include "threedfa/span.hpp"

namespace threedfa {

/// One white light and a material, as Sim3DR lights its meshes.
struct Lighting {
  float ambient = 0.3f;
  float diffuse = 0.6f;
  float specular = 0.1f;
  int shininess = 5;                    ///< exponent, at least 1
  std::array<float, 3> light{0, 0, 5};  ///< position, in the space of the normalised vertices
  std::array<float, 3> view{0, 0, 5};
};

/// Per-vertex brightness 0..1 (Phong 1975, with Sim3DR's specular term: each component of
/// view * reflection raised to `shininess` and then summed). Vertices are first moved and scaled to
/// the unit range that Sim3DR uses, so that the light stands at the same place for each face.
/// @param vertices V x 3
/// @param normals  V x 3, unit length
/// @param out      V
void shade(Span<const float> vertices, Span<const float> normals, const Lighting& lighting,
           Span<float> out);

}  // namespace threedfa
