#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "threedfa/roi.hpp"
#include "threedfa/span.hpp"
#include "threedfa/tensor_file.hpp"

namespace threedfa {

/// A linear model of points: mean + sum_k coefficients[k] * basis[k], added up in this order in
/// float32. Rows are coordinates (x0, y0, z0, x1, ...).
struct LinearModel {
  Span<const float> mean;                       ///< n
  std::vector<Span<const float>> basis;         ///< K rows of n, or none and instead:
  std::vector<Span<const std::int16_t>> steps;  ///< K rows, of which row k stands for scales[k]
  std::vector<float> scales;                    ///< times the integers; half the memory to read

  std::size_t mode_count() const { return basis.size() + steps.size(); }

  /// One set of K coefficients to n values.
  void evaluate(Span<const float> coefficients, Span<float> out) const;

  /// `count` sets of K coefficients (count x K) to count x n values, the same values as from
  /// `evaluate`; the basis is read once.
  void evaluate_many(Span<const float> coefficients, std::size_t count, Span<float> out) const;
};

/// Points on the surface of a mesh, L of them: each is a weighted sum of three vertices.
struct PointSet {
  std::string name;
  Span<const std::int32_t> vertices;  ///< L x 3
  Span<const float> weights;          ///< L x 3, finite; they need not add up to 1
};

/// A 3D morphable face model (Blanz and Vetter 1999): vertices = mean + shape basis * shape
/// coefficients + expression basis * expression coefficients, in object space (right-handed, +Y up,
/// +Z out of the face). Immutable and safe to use from many threads.
///
/// The file is a safetensors file with these tensors (V vertices, T triangles, S and E modes, L
/// landmarks):
///
///   mean               F32 (V, 3)
///   shape_basis        F32 (S, V, 3)    or I16 beside shape_scale F32 (S): row k is scale[k] times
///   expression_basis   F32 (E, V, 3)    the integers; likewise expression_scale F32 (E)
///   triangles          I32 (T, 3)      counter-clockwise seen from outside
///   landmark_vertices  I32 (L, 3)      each landmark is a weighted sum of three vertices
///   landmark_weights   F32 (L, 3)      finite; 1 0 0 where a landmark is a vertex
///   uv                 F32 (V, 2)      optional; 0..1, v up
///   NAME_vertices      I32 (M, 3)      optional, any number of pairs: further sets of points, in
///   NAME_weights       F32 (M, 3)      the form of the landmarks
///
/// V is at least 3, T, L and M at least 1; S and E may be 0. Other tensors are left alone. Copies
/// share the file and are cheap.
class MorphableModel {
 public:
  /// @throws FileError if the file is missing, malformed, or its tensors do not fit together
  ///         (sizes, index ranges, values that are not finite)
  static MorphableModel load(const std::string& path);

  /// From an already opened file (also one over caller-owned memory).
  explicit MorphableModel(TensorFile file);

  /// There is no move: what it left behind would still point into the file.
  MorphableModel(const MorphableModel&) = default;
  MorphableModel& operator=(const MorphableModel&) = default;

  std::size_t vertex_count() const { return mean_.size() / 3; }
  std::size_t triangle_count() const { return triangles_.size() / 3; }
  std::size_t shape_count() const { return shape_count_; }
  std::size_t expression_count() const { return expression_count_; }
  std::size_t landmark_count() const { return landmark_vertices_.size() / 3; }

  Span<const float> mean() const { return mean_; }
  Span<const float> shape_basis() const { return shape_basis_; }
  Span<const float> expression_basis() const { return expression_basis_; }
  Span<const std::int32_t> triangles() const { return triangles_; }
  Span<const std::int32_t> landmark_vertices() const { return landmark_vertices_; }
  Span<const float> landmark_weights() const { return landmark_weights_; }
  Span<const float> uv() const { return uv_; }  ///< empty where the file has none

  /// Every set of points in the file, the landmarks (named "landmark") among them.
  const std::vector<PointSet>& point_sets() const { return point_sets_; }

  const TensorFile& file() const { return file_; }

  /// V x 3 vertices of one face, object space.
  /// @throws std::invalid_argument on wrong numbers of coefficients or elements
  void reconstruct(Span<const float> shape_coeffs, Span<const float> expression_coeffs,
                   Span<float> vertices) const;

  /// L x 3 landmarks of one face, object space: the same points that reconstruct gives at the
  /// landmarks, at the cost of the landmarks alone.
  void reconstruct_landmarks(Span<const float> shape_coeffs, Span<const float> expression_coeffs,
                             Span<float> landmarks) const;

  /// Many faces at once. Coefficients: count x (S + E), shape first; out: count x V (or L) x 3.
  void reconstruct_many(Span<const float> coefficients, std::size_t count,
                        Span<float> vertices) const;
  void reconstruct_landmarks_many(Span<const float> coefficients, std::size_t count,
                                  Span<float> landmarks) const;

 private:
  TensorFile file_;
  Span<const float> mean_, shape_basis_, expression_basis_, uv_, landmark_weights_;
  Span<const std::int32_t> triangles_, landmark_vertices_;
  std::vector<PointSet> point_sets_;
  std::size_t shape_count_ = 0, expression_count_ = 0;
  LinearModel dense_;
  // Bases that the file holds as integers, and mean and basis rows at the landmarks. Shared, so
  // that the spans into them survive copies.
  std::shared_ptr<const std::vector<float>> shape_storage_, expression_storage_, sparse_storage_;
  LinearModel sparse_;
};

}  // namespace threedfa
