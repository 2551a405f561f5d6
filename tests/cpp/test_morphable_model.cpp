#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <random>
#include <type_traits>
#include <utility>

#include "tensor_bytes.hpp"
#include "threedfa/morphable_model.hpp"

using threedfa::FileError;
using threedfa::LinearModel;
using threedfa::MorphableModel;
using threedfa::Span;
using threedfa::TensorFile;
using threedfa_test::Bytes;
using threedfa_test::TensorWriter;

namespace {

using Floats = std::vector<float>;
using Ints = std::vector<std::int32_t>;

Floats random_floats(std::size_t count, std::mt19937& random, float size = 1.0f) {
  std::normal_distribution<float> normal(0.0f, size);
  Floats values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// The tensors of a model, to be damaged before they are written.
struct Tensors {
  std::size_t vertices, shapes, expressions;
  Floats mean, shape_basis, expression_basis;
  Ints triangles, landmark_vertices;
  Floats landmark_weights;
  Floats uv;
  Ints eyes_vertices;
  Floats eyes_weights;

  static Tensors random(std::size_t vertices, std::size_t shapes, std::size_t expressions,
                        std::mt19937& random) {
    Tensors t{vertices,
              shapes,
              expressions,
              random_floats(vertices * 3, random, 100.0f),
              random_floats(vertices * 3 * shapes, random),
              random_floats(vertices * 3 * expressions, random),
              {0, 1, 2},
              {},
              {},
              Floats(vertices * 2, 0.25f),
              {0, 1, 2, 2, 1, 0},
              {0.5f, 0.5f, 0, 0.25f, 0.25f, 0.5f}};
    // Every vertex is a landmark, and two more lie between vertices.
    for (std::size_t v = 0; v < vertices; ++v) {
      const auto index = static_cast<std::int32_t>(v);
      t.landmark_vertices.insert(t.landmark_vertices.end(), {index, 0, 2});
      t.landmark_weights.insert(t.landmark_weights.end(), {1, 0, 0});
    }
    t.landmark_vertices.insert(t.landmark_vertices.end(), {0, 1, 2, 2, 1, 0});
    t.landmark_weights.insert(t.landmark_weights.end(), {0.5f, 0.25f, 0.25f, 1.5f, -0.5f, 0});
    return t;
  }

  Bytes bytes() const {
    TensorWriter writer;
    writer.add("mean", {mean.size() / 3, 3}, mean)
        .add("shape_basis", {shapes, vertices, 3}, shape_basis)
        .add("expression_basis", {expressions, vertices, 3}, expression_basis)
        .add("triangles", {triangles.size() / 3, 3}, triangles)
        .add("landmark_vertices", {landmark_vertices.size() / 3, 3}, landmark_vertices)
        .add("landmark_weights", {landmark_weights.size() / 3, 3}, landmark_weights);
    if (!uv.empty()) writer.add("uv", {uv.size() / 2, 2}, uv);
    writer.add("eyes_vertices", {eyes_vertices.size() / 3, 3}, eyes_vertices)
        .add("_vertices", {1}, Floats{1})  // neither these nor these without weights are points
        .add("alone_vertices", {1}, Floats{1});
    if (!eyes_weights.empty()) {
      writer.add("eyes_weights", {eyes_weights.size() / 3, 3}, eyes_weights);
    }
    return writer.add("something_else", {1}, Floats{1}).bytes();
  }
};

// The message with which the tensors are refused, or "".
std::string refusal(const Tensors& tensors) {
  const Bytes bytes = tensors.bytes();
  try {
    const MorphableModel model(TensorFile::parse(bytes, "model"));
  } catch (const FileError& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

Tensors small() {
  std::mt19937 random(1);
  return Tensors::random(4, 2, 1, random);
}

}  // namespace

TEST_CASE("linear model: mean plus weighted rows, in any number and size") {
  std::mt19937 random(7);
  // Sizes around the tiles of the evaluation, numbers of faces around its groups.
  for (const std::size_t n : {0u, 1u, 3u, 511u, 512u, 513u, 4095u, 4096u, 4097u, 10000u}) {
    for (const std::size_t modes : {0u, 1u, 5u}) {
      const Floats mean = random_floats(n, random);
      std::vector<Floats> rows;
      LinearModel model;
      model.mean = mean;
      for (std::size_t k = 0; k < modes; ++k) rows.push_back(random_floats(n, random));
      for (const Floats& row : rows) model.basis.emplace_back(row);
      for (const std::size_t count : {0u, 1u, 2u, 7u, 8u, 9u, 17u}) {
        const Floats coefficients = random_floats(count * modes, random);
        Floats many(count * n);
        model.evaluate_many(coefficients, count, many);
        for (std::size_t face = 0; face < count; ++face) {
          Floats one(n), expected = mean;
          model.evaluate({coefficients.data() + face * modes, modes}, one);
          for (std::size_t k = 0; k < modes; ++k) {
            for (std::size_t i = 0; i < n; ++i) {
              expected[i] += coefficients[face * modes + k] * rows[k][i];
            }
          }
          // Bit for bit: the order of the sum is part of the contract.
          CHECK(one == expected);
          CHECK(std::equal(one.begin(), one.end(),
                           many.begin() + static_cast<std::ptrdiff_t>(face * n)));
        }
      }
    }
  }
}

TEST_CASE("linear model: wrong sizes are refused") {
  const Floats mean(6), row(6), short_row(5);
  Floats out(6);
  LinearModel model;
  model.mean = mean;
  model.basis.emplace_back(row);
  const Floats one(1), two(2);
  Floats five(5);
  CHECK_THROWS_AS(model.evaluate(two, out), std::invalid_argument);
  CHECK_THROWS_AS(model.evaluate(one, five), std::invalid_argument);
  CHECK_THROWS_AS(model.evaluate_many(two, 2, out), std::invalid_argument);
  LinearModel even;  // whose products with the number of sets would begin again at zero
  const Floats four(4);
  even.mean = four;
  even.basis.assign(4, four);
  CHECK_THROWS_AS(even.evaluate_many({}, std::size_t{1} << 62, {}), std::invalid_argument);
  model.basis.emplace_back(short_row);
  CHECK_THROWS_AS(model.evaluate(two, out), std::invalid_argument);
}

TEST_CASE("morphable model: bases of integers give the bits of the floats that they stand for") {
  std::mt19937 random(23);
  const Tensors tensors = Tensors::random(500, 7, 4, random);
  const std::size_t row = 3 * tensors.vertices;
  const auto steps = [&](std::size_t modes) {
    std::vector<std::int16_t> values(modes * row);
    for (auto& value : values) value = static_cast<std::int16_t>(random());
    return values;
  };
  const auto shape = steps(7), expression = steps(4);
  const Floats scale = random_floats(11, random, 1e-4f);
  const auto floats = [&](const std::vector<std::int16_t>& values, std::size_t first) {
    Floats out(values.size());
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i] = scale[first + i / row] * static_cast<float>(values[i]);
    }
    return out;
  };
  const auto file = [&](bool shape_packed, bool expression_packed) {
    TensorWriter writer;
    writer.add("mean", {500, 3}, tensors.mean)
        .add("triangles", {1, 3}, Ints{0, 1, 2})
        .add("landmark_vertices", {1, 3}, Ints{2, 2, 2})
        .add("landmark_weights", {1, 3}, Floats{1, 0, 0})
        .add("shape_scale", {7}, Floats(scale.begin(), scale.begin() + 7))
        .add("expression_scale", {4}, Floats(scale.begin() + 7, scale.end()));
    // Behind them: tensors of two bytes an element would leave the next ones unaligned.
    if (!shape_packed) writer.add("shape_basis", {7, 500, 3}, floats(shape, 0));
    if (!expression_packed) writer.add("expression_basis", {4, 500, 3}, floats(expression, 7));
    if (shape_packed) writer.add("shape_basis", {7, 500, 3}, shape);
    if (expression_packed) writer.add("expression_basis", {4, 500, 3}, expression);
    return writer.bytes();
  };
  const Floats coefficients = random_floats(6 * 11, random, 3.0f);
  Floats expected(6 * row);
  const Bytes plain = file(false, false);
  MorphableModel(TensorFile::parse(plain, "plain")).reconstruct_many(coefficients, 6, expected);
  for (const bool shape_packed : {false, true}) {
    for (const bool expression_packed : {false, true}) {
      const Bytes bytes = file(shape_packed, expression_packed);
      Floats found(6 * row);
      MorphableModel(TensorFile::parse(bytes, "packed")).reconstruct_many(coefficients, 6, found);
      CHECK(found == expected);
    }
  }
}

TEST_CASE("morphable model: bases of 16-bit integers are multiplied by their scales") {
  const Floats mean{0, 0, 0, 1, 0, 0, 0, 1, 0};
  const std::vector<std::int16_t> steps{0,      1, -1, 2, 3, 4, 5, 6, 32767,
                                        -32768, 1, 1,  1, 1, 1, 1, 1, 1};
  const auto file = [&](std::size_t scales, float last) {
    TensorWriter writer;
    Floats scale{0.5f, last};
    scale.resize(scales);
    return writer.add("mean", {3, 3}, mean)
        .add("shape_scale", {scales}, scale)
        .add("expression_basis", {0, 3, 3}, Floats{})
        .add("triangles", {1, 3}, Ints{0, 1, 2})
        .add("landmark_vertices", {1, 3}, Ints{2, 2, 2})
        .add("landmark_weights", {1, 3}, Floats{1, 0, 0})
        .add("shape_basis", {2, 3, 3}, steps)
        .bytes();
  };
  const Bytes bytes = file(2, 0.25f);
  const MorphableModel original(TensorFile::parse(bytes, "model"));
  const MorphableModel model = original;
  REQUIRE(model.shape_count() == 2);
  CHECK(model.shape_basis()[8] == 16383.5f);
  CHECK(model.shape_basis()[9] == -8192.0f);
  const Floats coefficients{2, 4};
  Floats vertices(9), landmark(3);
  model.reconstruct(coefficients, {}, vertices);
  CHECK(vertices == Floats{-32768, 2, 0, 4, 4, 5, 6, 8, 32768});
  model.reconstruct_landmarks(coefficients, {}, landmark);
  CHECK(landmark == Floats{6, 8, 32768});

  const auto load = [](const Bytes& data) { MorphableModel(TensorFile::parse(data, "model")); };
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK_THROWS_AS(load(file(1, 0)), FileError);
  CHECK_THROWS_AS(load(file(2, infinity)), FileError);
  CHECK_THROWS_AS(load(file(2, 1e38f)), FileError);  // times 32768 is infinite
}

TEST_CASE("morphable model: gives what the file holds") {
  const Tensors tensors = small();
  const Bytes bytes = tensors.bytes();
  const MorphableModel model(TensorFile::parse(bytes, "model"));
  CHECK(model.vertex_count() == 4);
  CHECK(model.triangle_count() == 1);
  CHECK(model.shape_count() == 2);
  CHECK(model.expression_count() == 1);
  CHECK(model.landmark_count() == 6);
  const auto same = [](auto span, const auto& vector) {
    return std::equal(span.begin(), span.end(), vector.begin(), vector.end());
  };
  CHECK(same(model.mean(), tensors.mean));
  CHECK(same(model.shape_basis(), tensors.shape_basis));
  CHECK(same(model.expression_basis(), tensors.expression_basis));
  CHECK(same(model.triangles(), tensors.triangles));
  CHECK(same(model.landmark_vertices(), tensors.landmark_vertices));
  CHECK(same(model.landmark_weights(), tensors.landmark_weights));
  CHECK(same(model.uv(), tensors.uv));
  REQUIRE(model.point_sets().size() == 2);
  CHECK(model.point_sets()[0].name == "landmark");
  CHECK(model.point_sets()[0].weights.data() == model.landmark_weights().data());
  CHECK(model.point_sets()[1].name == "eyes");
  CHECK(same(model.point_sets()[1].vertices, tensors.eyes_vertices));
  CHECK(same(model.point_sets()[1].weights, tensors.eyes_weights));
  CHECK(model.file().find("something_else") != nullptr);
  CHECK_THROWS_AS(MorphableModel::load("no/such/file"), FileError);
}

TEST_CASE("morphable model: zero coefficients give the mean") {
  const Tensors tensors = small();
  const Bytes bytes = tensors.bytes();
  const MorphableModel model(TensorFile::parse(bytes, "model"));
  Floats vertices(model.mean().size());
  const Floats shape(2), expression(1);
  model.reconstruct(shape, expression, vertices);
  CHECK(vertices == tensors.mean);
}

TEST_CASE("morphable model: landmarks equal the dense vertices, one face or many") {
  std::mt19937 random(11);
  for (const std::size_t vertices : {3u, 100u, 2000u}) {
    const Tensors tensors = Tensors::random(vertices, 6, 3, random);
    const Bytes bytes = tensors.bytes();
    const MorphableModel model(TensorFile::parse(bytes, "model"));
    const std::size_t count = 11, landmarks = model.landmark_count();
    const Floats coefficients = random_floats(count * 9, random, 3.0f);
    Floats dense(count * vertices * 3), sparse(count * landmarks * 3);
    model.reconstruct_many(coefficients, count, dense);
    model.reconstruct_landmarks_many(coefficients, count, sparse);
    for (std::size_t face = 0; face < count; ++face) {
      const Span<const float> shape(coefficients.data() + face * 9, 6);
      const Span<const float> expression(coefficients.data() + face * 9 + 6, 3);
      Floats one_dense(vertices * 3), one_sparse(landmarks * 3);
      model.reconstruct(shape, expression, one_dense);
      model.reconstruct_landmarks(shape, expression, one_sparse);
      CHECK(std::equal(one_dense.begin(), one_dense.end(),
                       dense.begin() + static_cast<std::ptrdiff_t>(face * vertices * 3)));
      CHECK(std::equal(one_sparse.begin(), one_sparse.end(),
                       sparse.begin() + static_cast<std::ptrdiff_t>(face * landmarks * 3)));
      // Landmark v is vertex v: equal bit for bit.
      CHECK(std::equal(one_dense.begin(), one_dense.end(), one_sparse.begin()));
      // The last two are sums of vertices 0, 1 and 2.
      for (std::size_t axis = 0; axis < 3; ++axis) {
        const float a = one_dense[axis], b = one_dense[3 + axis], c = one_dense[6 + axis];
        CHECK(one_sparse[vertices * 3 + axis] ==
              doctest::Approx(0.5f * a + 0.25f * b + 0.25f * c).epsilon(1e-4));
        CHECK(one_sparse[vertices * 3 + 3 + axis] ==
              doctest::Approx(1.5f * c - 0.5f * b).epsilon(1e-4));
      }
    }
  }
}

TEST_CASE("morphable model: copies and moved models stand alone") {
  const Bytes bytes = small().bytes();
  auto original = std::make_unique<MorphableModel>(TensorFile::parse(bytes, "model"));
  const Floats shape{1, -2}, expression{3};
  Floats dense(original->vertex_count() * 3), sparse(original->landmark_count() * 3);
  original->reconstruct(shape, expression, dense);
  original->reconstruct_landmarks(shape, expression, sparse);

  MorphableModel copy(*original);
  original.reset();
  const MorphableModel moved(std::move(copy));
  Floats dense_again(dense.size()), sparse_again(sparse.size());
  moved.reconstruct(shape, expression, dense_again);
  moved.reconstruct_landmarks(shape, expression, sparse_again);
  CHECK(dense_again == dense);
  CHECK(sparse_again == sparse);
  copy.reconstruct(shape, expression, dense_again);  // what was moved from is whole, too
  CHECK(dense_again == dense);
}

TEST_CASE("morphable model: wrong numbers of coefficients or elements are refused") {
  const Bytes bytes = small().bytes();
  const MorphableModel model(TensorFile::parse(bytes, "model"));
  const Floats one(1), two(2), three(3);
  Floats vertices(12), landmarks(18);
  CHECK_THROWS_WITH_AS(model.reconstruct(three, one, vertices),
                       "shape_coeffs: expected 2 elements, got 3", std::invalid_argument);
  CHECK_THROWS_AS(model.reconstruct(two, two, vertices), std::invalid_argument);
  CHECK_THROWS_AS(model.reconstruct(two, one, landmarks), std::invalid_argument);
  CHECK_THROWS_AS(model.reconstruct_landmarks(two, one, vertices), std::invalid_argument);
  CHECK_THROWS_AS(model.reconstruct_many(three, 2, vertices), std::invalid_argument);
  CHECK_THROWS_AS(model.reconstruct_landmarks_many(three, 1, vertices), std::invalid_argument);
  CHECK_NOTHROW(model.reconstruct(two, one, vertices));
}

TEST_CASE("morphable model: no modes and no uv are allowed") {
  std::mt19937 random(3);
  Tensors tensors = Tensors::random(3, 0, 0, random);
  tensors.uv.clear();
  const Bytes bytes = tensors.bytes();
  const MorphableModel model(TensorFile::parse(bytes, "model"));
  CHECK(model.uv().empty());
  Floats vertices(9);
  model.reconstruct({}, {}, vertices);
  CHECK(vertices == tensors.mean);
}

TEST_CASE("morphable model: tensors that do not fit together are refused") {
  CHECK(refusal(small()) == "");
  const auto damaged = [](auto damage) {
    Tensors tensors = small();
    damage(tensors);
    return refusal(tensors);
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();

  CHECK(contains(damaged([&](Tensors& t) { t.mean[5] = nan; }), "'mean'"));
  CHECK(contains(damaged([&](Tensors& t) { t.mean[0] = infinity; }), "got inf at element 0"));
  CHECK(contains(damaged([&](Tensors& t) { t.shape_basis[23] = -infinity; }), "'shape_basis'"));
  CHECK(contains(damaged([&](Tensors& t) { t.expression_basis[0] = nan; }), "'expression_basis'"));
  CHECK(contains(damaged([&](Tensors& t) { t.landmark_weights[1] = nan; }), "'landmark_weights'"));
  CHECK(contains(damaged([&](Tensors& t) { t.landmark_weights[0] = 3e38f; }),
                 "'landmark_weights'"));  // the landmark itself would be infinite
  CHECK(contains(damaged([&](Tensors& t) { t.uv[7] = nan; }), "'uv'"));
  CHECK(contains(damaged([&](Tensors& t) { t.uv[7] = 1.01f; }), "0..1"));
  CHECK(contains(damaged([&](Tensors& t) { t.uv[0] = -0.01f; }), "0..1"));

  CHECK(contains(damaged([](Tensors& t) { t.triangles[2] = 4; }), "vertices 0..3, got 4"));
  CHECK(contains(damaged([](Tensors& t) { t.triangles[0] = -1; }), "'triangles'"));
  CHECK(contains(damaged([](Tensors& t) { t.landmark_vertices[1] = 4; }), "'landmark_vertices'"));
  CHECK(contains(damaged([](Tensors& t) {
                   t.landmark_vertices[0] = std::numeric_limits<std::int32_t>::min();
                 }),
                 "'landmark_vertices'"));

  CHECK(
      contains(damaged([](Tensors& t) { t.mean.resize(9); }), "'shape_basis' of F32 (any, 3, 3)"));
  CHECK(contains(damaged([](Tensors& t) { t.landmark_weights.resize(15); }),
                 "'landmark_weights' of F32 (6, 3), got F32 (5, 3)"));
  CHECK(contains(damaged([](Tensors& t) { t.eyes_weights.resize(3); }),
                 "'eyes_weights' of F32 (2, 3), got F32 (1, 3)"));
  CHECK(contains(damaged([](Tensors& t) { t.eyes_vertices[5] = 4; }), "'eyes_vertices'"));
  CHECK(contains(damaged([&](Tensors& t) { t.eyes_weights[5] = nan; }), "'eyes_weights'"));
  CHECK(contains(damaged([](Tensors& t) { t.eyes_vertices.clear(); }), "1 rows or more, got 0"));
  CHECK(damaged([](Tensors& t) { t.eyes_weights.clear(); }) == "");  // no pair, no set
  CHECK(contains(damaged([](Tensors& t) { t.uv.resize(6); }), "'uv' of F32 (4, 2)"));
  CHECK(contains(damaged([](Tensors& t) { t.triangles.clear(); }), "1 rows or more, got 0"));
  CHECK(contains(damaged([](Tensors& t) {
                   t.landmark_vertices.clear();
                   t.landmark_weights.clear();
                 }),
                 "'landmark_vertices' with 1 rows or more"));
  std::mt19937 random(5);
  Tensors tiny = Tensors::random(3, 1, 1, random);
  tiny.vertices = 2;
  tiny.mean.resize(6);
  tiny.shape_basis.resize(6);
  tiny.expression_basis.resize(6);
  CHECK(contains(refusal(tiny), "'mean' with 3 rows or more, got 2"));
}

TEST_CASE("morphable model: a missing tensor is named") {
  const Bytes bytes = TensorWriter().add("mean", {3, 3}, Floats(9)).bytes();
  CHECK_THROWS_WITH_AS(MorphableModel(TensorFile::parse(bytes, "model")),
                       doctest::Contains("'shape_basis'"), FileError);
}
