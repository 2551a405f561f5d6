// Brightness of vertices. Part of loops.inl.

/// 0..1, NaN as it is.
inline float clamped(float value) {
  const float not_negative = value < 0.0f ? 0.0f : value;
  return not_negative > 1.0f ? 1.0f : not_negative;
}

void shade(const float* vertices, const float* normals, std::size_t count,
           const ShadingTerms& given, float* out) {
  constexpr std::size_t kBlock = 64;
  const ShadingTerms terms = given;
  float cosine[kBlock], base[3 * kBlock], power[3 * kBlock];
  for (std::size_t begin = 0; begin < count; begin += kBlock) {
    const std::size_t size = count - begin < kBlock ? count - begin : kBlock;
    const float* __restrict const v = vertices + 3 * begin;
    const float* __restrict const n = normals + 3 * begin;
    for (std::size_t i = 0; i < size; ++i) {
      float to_light[3], to_view[3], light_square = 0.0f, view_square = 0.0f;
      for (std::size_t axis = 0; axis < 3; ++axis) {
        const float point =
            (v[3 * i + axis] - terms.least[axis]) / terms.extent * 2.0f - terms.half[axis];
        to_light[axis] = terms.light[axis] - point;
        to_view[axis] = terms.view[axis] - point;
        light_square += to_light[axis] * to_light[axis];
        view_square += to_view[axis] * to_view[axis];
      }
      const float light_length = sqrtf(light_square), view_length = sqrtf(view_square);
      float dot = 0.0f;
      for (std::size_t axis = 0; axis < 3; ++axis) {
        to_light[axis] = light_length > 0.0f ? to_light[axis] / light_length : 0.0f;
        to_view[axis] = view_length > 0.0f ? to_view[axis] / view_length : 0.0f;
        dot += n[3 * i + axis] * to_light[axis];
      }
      for (std::size_t axis = 0; axis < 3; ++axis) {
        const float reflection = 2.0f * dot * n[3 * i + axis] - to_light[axis];
        base[axis * kBlock + i] = to_view[axis] * reflection;
      }
      cosine[i] = dot;
    }
    for (std::size_t i = 0; i < 3 * kBlock; ++i) power[i] = 1.0f;
    for (int exponent = terms.shininess; exponent > 0; exponent /= 2) {
      for (std::size_t axis = 0; axis < 3; ++axis) {
        for (std::size_t i = axis * kBlock; i < axis * kBlock + size; ++i) {
          power[i] *= exponent % 2 == 1 ? base[i] : 1.0f;
          base[i] *= base[i];
        }
      }
    }
    for (std::size_t i = 0; i < size; ++i) {
      // The cosine is not clamped in it, so a surface turned away from the light can shine too.
      const float shine = power[i] + power[kBlock + i] + power[2 * kBlock + i];
      const float specular = cosine[i] != 0.0f ? shine : 0.0f;
      out[begin + i] = clamped(terms.ambient + terms.diffuse * clamped(cosine[i]) +
                               terms.specular * clamped(specular));
    }
  }
}
