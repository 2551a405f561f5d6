#include "threedfa/morphable_model.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "simd/loops.hpp"

namespace threedfa {

namespace {

// Values that are added up at once: 16 KiB, half of a small L1 cache, so that the rows of the basis
// stream past sums that stay there.
constexpr std::size_t kTile = 4096;
// The same for several faces: so few that the part of the basis that they share, a hundred rows or
// so, stays in the L2 cache.
constexpr std::size_t kSharedTile = 512;

[[noreturn]] void fail(const TensorFile& file, const std::string& tensor,
                       const std::string& expected, const std::string& actual) {
  throw FileError(file.path() + ": expected tensor '" + tensor + "' with " + expected + ", got " +
                  actual);
}

void check_range(const TensorFile& file, const std::string& tensor, Span<const float> values,
                 float low, float high, const std::string& expected) {
  // No early exit: the compiler turns this loop into vector instructions. NaN is not in range.
  int outside = 0;
  for (const float value : values) outside |= !(value >= low && value <= high);
  if (outside == 0) return;
  const float* const bad = std::find_if_not(
      values.begin(), values.end(), [&](float value) { return value >= low && value <= high; });
  fail(file, tensor, expected,
       std::to_string(*bad) + " at element " + std::to_string(bad - values.begin()));
}

void check_finite(const TensorFile& file, const std::string& tensor, Span<const float> values) {
  constexpr float kMax = std::numeric_limits<float>::max();
  check_range(file, tensor, values, -kMax, kMax, "finite values");
}

void check_indices(const TensorFile& file, const std::string& tensor,
                   Span<const std::int32_t> indices, std::size_t vertex_count) {
  for (std::size_t i = 0; i < indices.size(); ++i) {
    if (indices[i] < 0 || static_cast<std::size_t>(indices[i]) >= vertex_count) {
      fail(file, tensor, "vertices 0.." + std::to_string(vertex_count - 1),
           std::to_string(indices[i]) + " at element " + std::to_string(i));
    }
  }
}

// The extents of a tensor that `f32` or `i32` has accepted.
const std::vector<std::size_t>& shape_of(const TensorFile& file, const std::string& tensor) {
  return file.find(tensor)->shape;
}

void check_count(const TensorFile& file, const std::string& tensor, std::size_t least) {
  const std::size_t rows = shape_of(file, tensor)[0];
  if (rows < least) {
    fail(file, tensor, std::to_string(least) + " rows or more", std::to_string(rows));
  }
}

// A basis NAME_basis as the file holds it, or made from integers and put into `storage`.
Span<const float> read_basis(const TensorFile& file, const std::string& name, std::size_t vertices,
                             std::shared_ptr<const std::vector<float>>& storage) {
  const std::string tensor = name + "_basis";
  const TensorFile::Tensor* const found = file.find(tensor);
  if (found == nullptr || found->dtype != "I16") {
    const Span<const float> basis = file.f32(tensor, {TensorFile::kAny, vertices, 3});
    check_finite(file, tensor, basis);
    return basis;
  }
  const Span<const std::int16_t> steps = file.i16(tensor, {TensorFile::kAny, vertices, 3});
  const std::size_t modes = found->shape[0];
  const Span<const float> scale = file.f32(name + "_scale", {modes});
  std::vector<float> values(steps.size());
  for (std::size_t k = 0; k < modes; ++k) {
    const std::size_t begin = k * vertices * 3;
    for (std::size_t i = begin; i < begin + vertices * 3; ++i) {
      values[i] = scale[k] * static_cast<float>(steps[i]);
    }
  }
  check_finite(file, name + "_scale", scale);
  check_finite(file, tensor, values);
  storage = std::make_shared<const std::vector<float>>(std::move(values));
  return *storage;
}

// The rows of a basis that the file holds as integers, which `read_basis` has checked.
void append_packed(const TensorFile& file, const std::string& name, std::size_t row_size,
                   LinearModel& to) {
  constexpr std::size_t kAny = TensorFile::kAny;
  const Span<const float> scales = file.f32(name + "_scale", {kAny});
  const Span<const std::int16_t> steps = file.i16(name + "_basis", {kAny, kAny, 3});
  for (std::size_t k = 0; k < scales.size(); ++k) {
    to.steps.emplace_back(steps.data() + k * row_size, row_size);
    to.scales.push_back(scales[k]);
  }
}

PointSet read_point_set(const TensorFile& file, const std::string& name, std::size_t vertex_count) {
  PointSet set;
  set.name = name;
  set.vertices = file.i32(name + "_vertices", {TensorFile::kAny, 3});
  check_count(file, name + "_vertices", 1);
  set.weights = file.f32(name + "_weights", {set.vertices.size() / 3, 3});
  check_finite(file, name + "_weights", set.weights);
  check_indices(file, name + "_vertices", set.vertices, vertex_count);
  return set;
}

std::vector<PointSet> read_point_sets(const TensorFile& file, std::size_t vertex_count) {
  const std::string suffix = "_vertices";
  std::vector<PointSet> sets;
  for (const TensorFile::Tensor& tensor : file.tensors()) {
    const std::size_t size = tensor.name.size();
    if (size <= suffix.size() || tensor.name.substr(size - suffix.size()) != suffix) continue;
    const std::string name = tensor.name.substr(0, size - suffix.size());
    if (file.find(name + "_weights") == nullptr) continue;
    sets.push_back(read_point_set(file, name, vertex_count));
  }
  return sets;
}

// The S + E coefficients of one face, shape first.
std::vector<float> joined(Span<const float> shape, Span<const float> expression,
                          std::size_t shape_count, std::size_t expression_count) {
  require_size("shape_coeffs", shape_count, shape.size());
  require_size("expression_coeffs", expression_count, expression.size());
  std::vector<float> all(shape.begin(), shape.end());
  all.insert(all.end(), expression.begin(), expression.end());
  return all;
}

}  // namespace

void LinearModel::evaluate(Span<const float> coefficients, Span<float> out) const {
  evaluate_many(coefficients, 1, out);
}

void LinearModel::evaluate_many(Span<const float> coefficients, std::size_t count,
                                Span<float> out) const {
  const std::size_t n = mean.size(), modes = mode_count();
  require(basis.empty() || steps.empty(), "model", "rows of floats or of integers", "both");
  require_size("scales", steps.size(), scales.size());
  for (const auto& row : basis) require_size("a row of the basis", n, row.size());
  for (const auto& row : steps) require_size("a row of the basis", n, row.size());
  const std::size_t widest = std::max({n, modes, std::size_t{1}});
  require(count <= std::numeric_limits<std::size_t>::max() / widest, "count",
          "as many sets as there is memory for", count);
  require_size("coefficients", count * modes, coefficients.size());
  require_size("out", count * n, out.size());

  // A few faces and modes at a time, whose pointers need no allocation.
  constexpr std::size_t kFaces = 8, kModes = 64;
  const simd::Loops& loops = simd::loops();
  const std::size_t tile = count > 1 ? kSharedTile : kTile;
  const float* floats[kModes];
  const std::int16_t* integers[kModes];
  const float* weights[kFaces];
  float* sums[kFaces];
  for (std::size_t begin = 0; begin < n; begin += tile) {
    const std::size_t size = std::min(tile, n - begin);
    for (std::size_t face = 0; face < count; face += kFaces) {
      const std::size_t faces = std::min(kFaces, count - face);
      for (std::size_t f = 0; f < faces; ++f) {
        sums[f] = out.data() + (face + f) * n + begin;
        std::copy_n(mean.data() + begin, size, sums[f]);
      }
      for (std::size_t mode = 0; mode < modes; mode += kModes) {
        const std::size_t some = std::min(kModes, modes - mode);
        for (std::size_t k = 0; k < some; ++k) {
          if (steps.empty()) {
            floats[k] = basis[mode + k].data() + begin;
          } else {
            integers[k] = steps[mode + k].data() + begin;
          }
        }
        for (std::size_t f = 0; f < faces; ++f) {
          weights[f] = coefficients.data() + (face + f) * modes + mode;
        }
        const float* const some_scales = steps.empty() ? nullptr : scales.data() + mode;
        loops.add_rows({floats, integers, some_scales}, some, size, faces, weights, sums);
      }
    }
  }
}

MorphableModel MorphableModel::load(const std::string& path) {
  return MorphableModel(TensorFile::open(path));
}

MorphableModel::MorphableModel(TensorFile file) : file_(std::move(file)) {
  constexpr std::size_t kAny = TensorFile::kAny;
  mean_ = file_.f32("mean", {kAny, 3});
  check_count(file_, "mean", 3);
  const std::size_t vertices = vertex_count();
  shape_basis_ = read_basis(file_, "shape", vertices, shape_storage_);
  expression_basis_ = read_basis(file_, "expression", vertices, expression_storage_);
  shape_count_ = shape_of(file_, "shape_basis")[0];
  expression_count_ = shape_of(file_, "expression_basis")[0];
  triangles_ = file_.i32("triangles", {kAny, 3});
  check_count(file_, "triangles", 1);
  const PointSet landmarks = read_point_set(file_, "landmark", vertices);
  landmark_vertices_ = landmarks.vertices;
  landmark_weights_ = landmarks.weights;
  point_sets_ = read_point_sets(file_, vertices);

  check_finite(file_, "mean", mean_);
  check_indices(file_, "triangles", triangles_, vertices);
  if (file_.find("uv") != nullptr) {
    uv_ = file_.f32("uv", {vertices, 2});
    check_range(file_, "uv", uv_, 0.0f, 1.0f, "values in 0..1");
  }

  std::vector<Span<const float>> rows;
  for (std::size_t k = 0; k < shape_count_; ++k) {
    rows.emplace_back(shape_basis_.data() + k * mean_.size(), mean_.size());
  }
  for (std::size_t k = 0; k < expression_count_; ++k) {
    rows.emplace_back(expression_basis_.data() + k * mean_.size(), mean_.size());
  }
  dense_.mean = mean_;
  const bool shape_packed = shape_storage_ != nullptr || shape_count_ == 0;
  const bool expression_packed = expression_storage_ != nullptr || expression_count_ == 0;
  if (shape_packed && expression_packed) {  // the same values from half the memory
    if (shape_count_ > 0) append_packed(file_, "shape", mean_.size(), dense_);
    if (expression_count_ > 0) append_packed(file_, "expression", mean_.size(), dense_);
  } else {
    dense_.basis = rows;
  }

  // Landmarks are linear in the vertices, so they have a mean and basis rows of their own.
  const auto append_at_landmarks = [this](Span<const float> row, std::vector<float>& to) {
    for (std::size_t i = 0; i < landmark_vertices_.size(); i += 3) {
      for (std::size_t axis = 0; axis < 3; ++axis) {
        double value = 0;
        for (std::size_t corner = 0; corner < 3; ++corner) {
          const auto vertex = static_cast<std::size_t>(landmark_vertices_[i + corner]);
          value += static_cast<double>(landmark_weights_[i + corner]) * row[3 * vertex + axis];
        }
        to.push_back(static_cast<float>(value));
      }
    }
  };
  std::vector<float> storage;
  append_at_landmarks(mean_, storage);
  for (const Span<const float>& row : rows) append_at_landmarks(row, storage);
  check_finite(file_, "landmark_weights", storage);
  sparse_storage_ = std::make_shared<const std::vector<float>>(std::move(storage));
  const std::size_t n = landmark_vertices_.size();
  sparse_.mean = {sparse_storage_->data(), n};
  for (std::size_t k = 1; k <= rows.size(); ++k) {
    sparse_.basis.emplace_back(sparse_storage_->data() + k * n, n);
  }
}

void MorphableModel::reconstruct(Span<const float> shape_coeffs,
                                 Span<const float> expression_coeffs, Span<float> vertices) const {
  const std::vector<float> coefficients =
      joined(shape_coeffs, expression_coeffs, shape_count_, expression_count_);
  dense_.evaluate(coefficients, vertices);
}

void MorphableModel::reconstruct_landmarks(Span<const float> shape_coeffs,
                                           Span<const float> expression_coeffs,
                                           Span<float> landmarks) const {
  const std::vector<float> coefficients =
      joined(shape_coeffs, expression_coeffs, shape_count_, expression_count_);
  sparse_.evaluate(coefficients, landmarks);
}

void MorphableModel::reconstruct_many(Span<const float> coefficients, std::size_t count,
                                      Span<float> vertices) const {
  dense_.evaluate_many(coefficients, count, vertices);
}

void MorphableModel::reconstruct_landmarks_many(Span<const float> coefficients, std::size_t count,
                                                Span<float> landmarks) const {
  sparse_.evaluate_many(coefficients, count, landmarks);
}

}  // namespace threedfa
