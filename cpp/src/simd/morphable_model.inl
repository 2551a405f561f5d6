// Sums of the rows of a basis. Part of loops.inl.

THREEDFA_SIMD_INLINE Floats values_at(const float* row, Floats) { return load(row); }
THREEDFA_SIMD_INLINE Floats values_at(const std::int16_t* row, Floats scale) {
  return to_floats(load(row)) * scale;
}
THREEDFA_SIMD_INLINE float value_at(const float* row, float) { return *row; }
THREEDFA_SIMD_INLINE float value_at(const std::int16_t* row, float scale) {
  return static_cast<float>(*row) * scale;
}

/// Adds kRows rows to the sums of kFaces faces, so that each row is read once for all of them.
template <std::size_t kRows, std::size_t kFaces, class Value>
inline void add_some_rows(const Value* const* rows, const float* scales, std::size_t size,
                          std::size_t mode, const float* const* coefficients, float* const* sums) {
  const Value* row[kRows];
  float scale[kRows], c[kFaces][kRows], *sum[kFaces];
  for (std::size_t k = 0; k < kRows; ++k) {
    row[k] = rows[mode + k];
    scale[k] = scales == nullptr ? 1.0f : scales[mode + k];
  }
  for (std::size_t f = 0; f < kFaces; ++f) {
    sum[f] = sums[f];
    for (std::size_t k = 0; k < kRows; ++k) c[f][k] = coefficients[f][mode + k];
  }
  std::size_t i = 0;
#if !defined(THREEDFA_SIMD_AVX2) && !defined(THREEDFA_SIMD_NEON)
  THREEDFA_SIMD_INDEPENDENT
#endif
  for (; i + kLanes <= size; i += kLanes) {
    Floats values[kRows];
    for (std::size_t k = 0; k < kRows; ++k) values[k] = values_at(row[k] + i, every(scale[k]));
    for (std::size_t f = 0; f < kFaces; ++f) {
      Floats total = load(sum[f] + i);
      for (std::size_t k = 0; k < kRows; ++k) total = total + every(c[f][k]) * values[k];
      store(sum[f] + i, total);
    }
  }
  for (; i < size; ++i) {
    for (std::size_t f = 0; f < kFaces; ++f) {
      float total = sum[f][i];
      for (std::size_t k = 0; k < kRows; ++k) total += c[f][k] * value_at(row[k] + i, scale[k]);
      sum[f][i] = total;
    }
  }
}

/// Adds all rows to the sums of kFaces faces. Ten at a time: with more, not all of their values fit
/// the registers; with fewer, the sums are written and read more often.
template <std::size_t kFaces, class Value>
inline void add_rows_to(const Value* const* rows, const float* scales, std::size_t modes,
                        std::size_t size, const float* const* coefficients, float* const* sums) {
  constexpr std::size_t kRows = 10;
  std::size_t k = 0;
  for (; k + kRows <= modes; k += kRows) {
    add_some_rows<kRows, kFaces>(rows, scales, size, k, coefficients, sums);
  }
  for (; k < modes; ++k) add_some_rows<1, kFaces>(rows, scales, size, k, coefficients, sums);
}

template <class Value>
void add_rows_of(const Value* const* rows, const float* scales, std::size_t modes, std::size_t size,
                 std::size_t faces, const float* const* coefficients, float* const* sums) {
  std::size_t f = 0;
  if constexpr (kLanes > 1) {  // else too long a loop for Clang to make registers of
    for (; f + 8 <= faces; f += 8) {
      add_rows_to<8>(rows, scales, modes, size, coefficients + f, sums + f);
    }
  }
  for (; f + 4 <= faces; f += 4) {
    add_rows_to<4>(rows, scales, modes, size, coefficients + f, sums + f);
  }
  for (; f + 2 <= faces; f += 2) {
    add_rows_to<2>(rows, scales, modes, size, coefficients + f, sums + f);
  }
  if (f < faces) add_rows_to<1>(rows, scales, modes, size, coefficients + f, sums + f);
}

void add_rows(const BasisRows& rows, std::size_t modes, std::size_t size, std::size_t faces,
              const float* const* coefficients, float* const* sums) {
  if (rows.scales == nullptr) {
    add_rows_of(rows.floats, nullptr, modes, size, faces, coefficients, sums);
  } else {
    add_rows_of(rows.steps, rows.scales, modes, size, faces, coefficients, sums);
  }
}
