// Times kernels against textbook loops in the same run, after checking that both give the same
// answer, and shows how their time grows with the work. One thread; run it once for each of
// THREEDFA_SIMD=scalar, avx2, avx512 (on ARM scalar, neon) to compare builds. With --json the rows
// come as JSON.
//
// Times are of the processor, not of the clock on the wall: other programs on the machine change
// them little. Ratios are of the least times, which repeat best.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <limits>
#include <random>
#include <string>
#include <threedfa/threedfa.hpp>
#include <vector>

#include "box_loop.hpp"
#include "simd/loops.hpp"

namespace {

using threedfa::RasterBuffers;
using threedfa::Span;

using Floats = std::vector<float>;
using Indices = std::vector<std::int32_t>;

struct Times {
  double least, median, p99;  // milliseconds
};

double now_ms() { return 1e3 * static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

/// Of a call, after one that does not count. Short calls are timed several at once.
template <class Function>
Times time_of(Function function) {
  constexpr double kShortest = 0.2, kBudget = 120;
  const double start = now_ms();
  function();
  const double first = std::max(now_ms() - start, 1e-3);
  const int calls = static_cast<int>(kShortest / first) + 1;
  const double expected = kBudget / (calls * first);
  const int samples = static_cast<int>(std::clamp(expected, 3.0, 200.0));
  std::vector<double> times;
  for (int i = 0; i < samples; ++i) {
    const double begin = now_ms();
    for (int k = 0; k < calls; ++k) function();
    times.push_back((now_ms() - begin) / calls);
  }
  std::sort(times.begin(), times.end());
  const std::size_t count = times.size();
  return {times[0], times[count / 2], times[count - 1 - count / 100]};
}

struct Row {
  std::string name;
  double size;  // what grows: boxes, faces, triangles, megapixels
  Times ours;
  std::string alternative;
  double other;  // its least time
};

std::vector<Row> rows;

/// So that what an earlier row has written is no answer of the next one.
void forget(Floats& values) {
  std::fill(values.begin(), values.end(), std::numeric_limits<float>::quiet_NaN());
}

void require_same(bool same, const char* name) {
  if (same) return;
  std::fprintf(stderr, "%s: the answers differ\n", name);
  std::exit(1);
}

// --- boxes ---------------------------------------------------------------------------------------

/// The O(n^2) loop of Fast R-CNN's cpu_nms, on boxes sorted by falling score.
std::vector<std::int64_t> textbook_nms(const Floats& boxes, std::size_t count, float threshold) {
  std::vector<std::int64_t> keep;
  std::vector<char> gone(count);
  for (std::size_t i = 0; i < count; ++i) {
    if (gone[i]) continue;
    keep.push_back(static_cast<std::int64_t>(i));
    const float* a = boxes.data() + 4 * i;
    const float area = (a[2] - a[0] + 1) * (a[3] - a[1] + 1);
    for (std::size_t j = i + 1; j < count; ++j) {
      if (gone[j]) continue;
      const float* b = boxes.data() + 4 * j;
      const float width = std::max(0.0f, std::min(a[2], b[2]) - std::max(a[0], b[0]) + 1);
      const float height = std::max(0.0f, std::min(a[3], b[3]) - std::max(a[1], b[1]) + 1);
      const float overlap = width * height;
      const float other = (b[2] - b[0] + 1) * (b[3] - b[1] + 1);
      if (overlap / (area + other - overlap) >= threshold) gone[j] = 1;
    }
  }
  return keep;
}

void benchmark_nms(std::mt19937& generator) {
  std::uniform_real_distribution<float> place(0, 1000), side(10, 100);
  for (const std::size_t count : {100, 500, 2000, 5000, 20000}) {
    Floats boxes, scores;
    for (std::size_t i = 0; i < count; ++i) {
      const float x = place(generator), y = place(generator);
      boxes.insert(boxes.end(), {x, y, x + side(generator), y + side(generator)});
      scores.push_back(1.0f - static_cast<float>(i) / static_cast<float>(count));
    }
    std::vector<std::int64_t> ours, theirs;
    const Times fast = time_of([&] { ours = threedfa::nms(boxes, scores, 0.3f, 1.0f); });
    const Times slow = time_of([&] { theirs = textbook_nms(boxes, count, 0.3f); });
    require_same(ours == theirs, "nms");
    rows.push_back({"nms of uniform boxes", double(count), fast, "O(n^2) loop", slow.least});
  }
}

void benchmark_detection(std::mt19937& generator) {
  // A network's output: low scores nearly everywhere, high ones around a few places.
  constexpr int kHeight = 720, kWidth = 1080;
  const threedfa::PriorConfig config = threedfa::PriorConfig::faceboxes();
  const std::size_t count = threedfa::prior_count(kHeight, kWidth, config);
  Floats priors(4 * count), loc(4 * count), scores(2 * count);
  std::uniform_real_distribution<float> offset(-1, 1), low(0, 0.04f), high(0.05f, 1);
  for (float& value : loc) value = offset(generator);
  for (std::size_t i = 0; i < count; ++i) {
    scores[2 * i + 1] = generator() % 200 == 0 ? high(generator) : low(generator);
  }
  threedfa::prior_boxes(kHeight, kWidth, config, priors);  // kept for each size of picture
  std::vector<threedfa::Candidate> ours;
  const Times fast = time_of([&] {
    ours = threedfa::detect(loc, scores.data() + 1, 2, priors, {}, 0.05f, kWidth, kHeight, 0.3, 1,
                            5000, 750);
  });
  std::vector<std::int64_t> theirs;
  std::vector<std::size_t> kept;
  const Times slow = time_of([&] {
    threedfa::prior_boxes(kHeight, kWidth, config, priors);
    Floats boxes(loc.size()), sorted;
    threedfa::decode_boxes(loc, priors, {}, boxes);
    kept.clear();
    for (std::size_t i = count; i-- > 0;) {
      if (scores[2 * i + 1] > 0.05f) kept.push_back(i);
    }
    std::stable_sort(kept.begin(), kept.end(), [&](std::size_t a, std::size_t b) {
      return scores[2 * a + 1] > scores[2 * b + 1];
    });
    for (const std::size_t i : kept) {
      for (std::size_t k = 0; k < 4; ++k) {
        sorted.push_back(boxes[4 * i + k] * (k % 2 == 0 ? kWidth : kHeight));
      }
    }
    theirs = textbook_nms(sorted, kept.size(), 0.3f);
  });
  bool same = ours.size() == theirs.size();
  for (std::size_t i = 0; same && i < ours.size(); ++i) {
    same = ours[i].prior == static_cast<std::int64_t>(kept[static_cast<std::size_t>(theirs[i])]);
  }
  require_same(same, "detection");
  rows.push_back({"decode, threshold and nms, 1080 x 720", double(count), fast,
                  "priors, full decode, loop", slow.least});
}

// --- the model -----------------------------------------------------------------------------------

void benchmark_reconstruction(std::mt19937& generator) {
  constexpr std::size_t kRows = 3 * 38365, kModes = 50, kFaces = 32;
  std::vector<std::int16_t> steps(kRows * kModes);
  for (auto& step : steps) step = static_cast<std::int16_t>(generator());
  std::normal_distribution<float> pick;
  Floats mean(kRows), basis(kRows * kModes), coefficients(kFaces * kModes);
  for (auto* values : {&mean, &coefficients}) {
    for (float& value : *values) value = pick(generator);
  }
  threedfa::LinearModel model, packed;
  model.mean = packed.mean = mean;
  for (std::size_t k = 0; k < kModes; ++k) {
    packed.scales.push_back(1e-4f * pick(generator));
    packed.steps.emplace_back(steps.data() + k * kRows, kRows);
    model.basis.emplace_back(basis.data() + k * kRows, kRows);
    for (std::size_t i = k * kRows; i < (k + 1) * kRows; ++i) {
      basis[i] = packed.scales[k] * static_cast<float>(steps[i]);
    }
  }

  float total = 0;  // what the machine reads at best, in one stream with independent sums
  const Times stream = time_of([&] {
    std::array<float, 64> sums{};
    for (std::size_t i = 0; i + sums.size() <= basis.size(); i += sums.size()) {
      for (std::size_t j = 0; j < sums.size(); ++j) sums[j] += basis[i + j];
    }
    for (const float sum : sums) total += sum;
  });
  Floats theirs(kRows), ours(kFaces * kRows);
  const Times textbook = time_of([&] {
    for (std::size_t i = 0; i < kRows; ++i) {
      float sum = mean[i];
      for (std::size_t k = 0; k < kModes; ++k) sum += coefficients[k] * basis[k * kRows + i];
      theirs[i] = sum;
    }
  });
  const Span<const float> first(coefficients.data(), kModes);
  const Span<float> one(ours.data(), kRows);
  const Times single = time_of([&] { model.evaluate(first, one); });
  require_same(std::equal(theirs.begin(), theirs.end(), ours.begin()) && !std::isnan(total),
               "reconstruction");
  rows.push_back({"reconstruction, 38365 x 50", 1, single, "loop", textbook.least});
  rows.push_back({"reconstruction, 38365 x 50", 1, single, "read of its bytes", stream.least});
  forget(ours);
  const Times half = time_of([&] { packed.evaluate(first, one); });
  require_same(std::equal(theirs.begin(), theirs.end(), ours.begin()), "packed reconstruction");
  rows.push_back({"reconstruction from integers", 1, half, "from floats", single.least});
  for (const std::size_t faces : {2, 4, 8, 16, 32}) {
    const Span<const float> sets(coefficients.data(), faces * kModes);
    const Span<float> out(ours.data(), faces * kRows);
    forget(ours);
    const Times many = time_of([&] { model.evaluate_many(sets, faces, out); });
    for (std::size_t face = 0; face < faces; ++face) {
      model.evaluate({&coefficients[face * kModes], kModes}, theirs);
      require_same(std::equal(theirs.begin(), theirs.end(), &ours[face * kRows]),
                   "reconstruction of several faces");
    }
    rows.push_back({"reconstruction, 38365 x 50", double(faces), many, "one by one",
                    double(faces) * single.least});
  }
}

// --- meshes --------------------------------------------------------------------------------------

struct Mesh {
  Floats vertices, uv;
  Indices triangles;
};

/// The default pack's face, dense, turned by 20 degrees and `size` pixels high: half of its
/// triangles are hidden or seen from behind, as on every head.
Mesh face(float size) {
  const threedfa::MorphableModel model = threedfa::MorphableModel::load(THREEDFA_DEFAULT_MODEL);
  const threedfa::Subdivision dense(model.triangles(), model.vertex_count());
  Mesh mesh;
  mesh.triangles.assign(dense.triangles().begin(), dense.triangles().end());
  mesh.vertices.resize(3 * dense.dense_count());
  mesh.uv.resize(2 * dense.dense_count());
  dense.apply(model.mean(), mesh.vertices);
  dense.apply(model.uv(), mesh.uv);
  const threedfa::Rotation turn = threedfa::rotation_from_angles({20, 0, 0});
  std::array<float, 3> low{}, high{};
  for (std::size_t i = 0; i < mesh.vertices.size(); i += 3) {
    float* const v = &mesh.vertices[i];
    const float turned[] = {turn[0] * v[0] + turn[1] * v[1] + turn[2] * v[2],
                            -(turn[3] * v[0] + turn[4] * v[1] + turn[5] * v[2]),
                            turn[6] * v[0] + turn[7] * v[1] + turn[8] * v[2]};
    for (std::size_t axis = 0; axis < 3; ++axis) {
      v[axis] = turned[axis];
      low[axis] = i == 0 ? v[axis] : std::min(low[axis], v[axis]);
      high[axis] = i == 0 ? v[axis] : std::max(high[axis], v[axis]);
    }
  }
  const float scale = (size - 1) / (high[1] - low[1]);
  for (std::size_t i = 0; i < mesh.vertices.size(); ++i) {
    mesh.vertices[i] = scale * (mesh.vertices[i] - low[i % 3]);
  }
  return mesh;
}

/// A dome of `cells` x `cells` squares of two triangles, `size` pixels wide, seen from the side.
Mesh dome(int cells, float size) {
  Mesh mesh;
  for (int row = 0; row <= cells; ++row) {
    for (int column = 0; column <= cells; ++column) {
      const float u = static_cast<float>(column) / static_cast<float>(cells);
      const float v = static_cast<float>(row) / static_cast<float>(cells);
      const float x = u - 0.5f, y = v - 0.5f, z = 0.8f * std::sqrt(0.6f - x * x - y * y);
      mesh.uv.insert(mesh.uv.end(), {u, 1 - v});
      mesh.vertices.insert(mesh.vertices.end(), {size * (0.9f * x + 0.43f * z + 0.4f),
                                                 size * (y + 0.5f), size * (0.9f * z - 0.43f * x)});
    }
  }
  for (int row = 0; row < cells; ++row) {
    for (int column = 0; column < cells; ++column) {
      const int a = row * (cells + 1) + column, b = a + 1, c = a + cells + 1, d = c + 1;
      mesh.triangles.insert(mesh.triangles.end(), {a, c, b, b, c, d});
    }
  }
  return mesh;
}

struct Picture {
  int size;
  Floats depth, barycentric;
  Indices triangle;

  explicit Picture(int side)
      : size(side), depth(pixels()), barycentric(3 * pixels()), triangle(pixels()) {}
  std::size_t pixels() const {
    return static_cast<std::size_t>(size) * static_cast<std::size_t>(size);
  }
  RasterBuffers buffers() {
    RasterBuffers result;
    result.height = result.width = size;
    result.depth = depth.data();
    result.triangle = triangle.data();
    result.barycentric = barycentric.data();
    return result;
  }
};

void textbook_rasterize(const Mesh& mesh, Picture& picture) {
  box_loop(mesh.vertices.data(), mesh.triangles.data(), mesh.triangles.size() / 3, picture.size,
           picture.depth.data(), picture.triangle.data(), picture.barycentric.data());
}

/// Cross products added up at the corners, then divided by their length, in float32.
void textbook_normals(const Mesh& mesh, Floats& normals) {
  std::fill(normals.begin(), normals.end(), 0.0f);
  for (std::size_t t = 0; t < mesh.triangles.size(); t += 3) {
    const float* corner[3];
    for (std::size_t k = 0; k < 3; ++k) {
      corner[k] = &mesh.vertices[3 * static_cast<std::size_t>(mesh.triangles[t + k])];
    }
    const float u[] = {corner[1][0] - corner[0][0], corner[1][1] - corner[0][1],
                       corner[1][2] - corner[0][2]};
    const float v[] = {corner[2][0] - corner[0][0], corner[2][1] - corner[0][1],
                       corner[2][2] - corner[0][2]};
    const float cross[] = {u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2],
                           u[0] * v[1] - u[1] * v[0]};
    for (std::size_t k = 0; k < 3; ++k) {
      for (std::size_t axis = 0; axis < 3; ++axis) {
        normals[3 * static_cast<std::size_t>(mesh.triangles[t + k]) + axis] += cross[axis];
      }
    }
  }
  for (std::size_t i = 0; i < normals.size(); i += 3) {
    float* n = &normals[i];
    const float length = std::sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]);
    for (std::size_t axis = 0; axis < 3; ++axis) n[axis] /= length > 0 ? length : 1.0f;
  }
}

bool within(float tolerance, const Floats& a, const Floats& b) {
  return std::equal(a.begin(), a.end(), b.begin(),
                    [=](float x, float y) { return std::abs(x - y) < tolerance; });
}

/// Whether bytes are, but for edges, those of colours (0..255, three for each vertex) interpolated
/// by the textbook over a picture that was black.
bool painted(const std::vector<std::uint8_t>& bytes, const Floats& colors, const Mesh& mesh,
             const Picture& textbook) {
  std::size_t same = 0;
  for (std::size_t i = 0; i < textbook.pixels(); ++i) {
    bool close = true;
    for (std::size_t c = 0; c < 3; ++c) {
      float expected = 0;
      if (textbook.triangle[i] >= 0) {
        const auto* const corner =
            &mesh.triangles[3 * static_cast<std::size_t>(textbook.triangle[i])];
        for (std::size_t k = 0; k < 3; ++k) {
          expected +=
              textbook.barycentric[3 * i + k] * colors[3 * static_cast<std::size_t>(corner[k]) + c];
        }
      }
      close = close && std::abs(expected - static_cast<float>(bytes[3 * i + c])) < 1.5f;
    }
    same += close;
  }
  return double(same) > 0.97 * double(textbook.pixels());
}

/// What the predecessor's users draw, against its own times (milliseconds, one thread, as many
/// triangles) where the box loop took 5.2 ms, scaled by `box_time`, what it takes here.
void benchmark_drawing(const Mesh& mesh, const Picture& textbook, double box_time,
                       std::mt19937& generator) {
  const double triangles = double(mesh.triangles.size()) / 3;
  const std::size_t count = mesh.vertices.size() / 3;
  const auto report = [&](const char* name, const Times& times, double predecessor) {
    rows.push_back({name, triangles, times, "predecessor, scaled", predecessor * box_time / 5.2});
  };
  const int side = textbook.size;
  std::vector<std::uint8_t> bytes(3 * textbook.pixels());
  threedfa::PaintWorkspace workspace;
  const auto paint = [&](const Floats& colors) {
    paint_mesh({bytes.data(), side, side, std::ptrdiff_t{3} * side}, mesh.vertices, mesh.triangles,
               colors, workspace);
  };
  // Checks a picture of colours 0..1, one or three for each vertex.
  const auto check = [&](const Floats& colors, const char* name) {
    Floats expected(3 * count);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      expected[i] = 255 * colors[colors.size() == count ? i / 3 : i];
    }
    std::fill(bytes.begin(), bytes.end(), std::uint8_t{0});
    paint(colors);
    require_same(painted(bytes, expected, mesh, textbook), name);
  };

  const threedfa::VertexRings rings(mesh.triangles, count);
  Floats normals(mesh.vertices.size()), greys(count), depths(count), code(mesh.vertices);
  const Times lit = time_of([&] {
    vertex_normals(mesh.vertices, rings, normals);
    shade(mesh.vertices, normals, threedfa::Lighting{}, greys);
    paint(greys);
  });
  check(greys, "lit mesh");
  report("lit mesh", lit, 17.7);

  const Times deep = time_of([&] {
    float low = mesh.vertices[2], high = low;
    for (std::size_t i = 0; i < count; ++i) {
      low = std::min(low, mesh.vertices[3 * i + 2]);
      high = std::max(high, mesh.vertices[3 * i + 2]);
    }
    for (std::size_t i = 0; i < count; ++i) {
      depths[i] = (mesh.vertices[3 * i + 2] - low) / (high - low);
    }
    paint(depths);
  });
  check(depths, "depth picture");
  report("depth picture", deep, 11.6);

  for (float& value : code) value = std::clamp(value / static_cast<float>(side), 0.0f, 1.0f);
  const Times coded = time_of([&] { paint(code); });
  check(code, "pncc");
  report("pncc", coded, 8.0);  // its time of one call of rasterize, which this is

  constexpr int kTexture = 256;
  std::vector<std::uint8_t> pixels(3 * textbook.pixels());
  for (auto& value : pixels) value = static_cast<std::uint8_t>(generator());
  const threedfa::ImageView image{pixels.data(), side, side, 3, std::ptrdiff_t{3} * side};
  Picture layout(kTexture);
  std::vector<std::uint8_t> texture(3 * layout.pixels());
  const Times laid_out = time_of(
      [&] { uv_texture(image, mesh.vertices, mesh.uv, mesh.triangles, kTexture, texture); });
  Mesh flat = mesh;
  for (std::size_t i = 0; i < count; ++i) {
    flat.vertices[3 * i] = mesh.uv[2 * i] * (kTexture - 1);
    flat.vertices[3 * i + 1] = (1 - mesh.uv[2 * i + 1]) * (kTexture - 1);
    flat.vertices[3 * i + 2] = 0;
  }
  clear(layout.buffers());
  textbook_rasterize(flat, layout);
  Floats seen(3 * count);
  sample_bilinear(image, mesh.vertices, 3, seen);
  require_same(painted(texture, seen, flat, layout), "uv texture");
  report("uv texture, 256 x 256", laid_out, 7.8);
}

/// Draws the mesh into `textbook`; returns the textbook's time.
double benchmark_rasterizer(const char* name, const Mesh& mesh, Picture& textbook) {
  Picture ours(textbook.size);
  const Times fast = time_of([&] {
    clear(ours.buffers());
    rasterize(mesh.vertices, mesh.triangles, {}, 0, ours.buffers());
  });
  const Times slow = time_of([&] {
    clear(textbook.buffers());
    textbook_rasterize(mesh, textbook);
  });
  std::size_t same = 0;  // the textbook's float32 differs at edges
  for (std::size_t i = 0; i < ours.pixels(); ++i) {
    same += ours.triangle[i] == textbook.triangle[i];
  }
  require_same(double(same) > 0.97 * double(ours.pixels()), "rasterize");
  rows.push_back({name, double(mesh.triangles.size()) / 3, fast, "box loop", slow.least});
  return slow.least;
}

void benchmark_meshes(std::mt19937& generator) {
  constexpr int kSide = 370;
  Picture textbook(kSide);
  for (const int cells : {50, 100, 195, 390, 548}) {
    benchmark_rasterizer("rasterize a dome, 370 x 370", dome(cells, kSide), textbook);
  }

  const Mesh mesh = face(kSide);
  const double triangles = double(mesh.triangles.size()) / 3;
  const double box_time = benchmark_rasterizer("rasterize a face, 370 high", mesh, textbook);

  Floats normals(mesh.vertices.size()), expected(normals.size());
  std::vector<double> workspace;
  const Times unit =
      time_of([&] { threedfa::vertex_normals(mesh.vertices, mesh.triangles, workspace, normals); });
  const Times scatter = time_of([&] { textbook_normals(mesh, expected); });
  require_same(within(1e-3f, normals, expected), "normals");
  rows.push_back({"vertex normals", triangles, unit, "scatter loop", scatter.least});
  const threedfa::VertexRings rings(mesh.triangles, mesh.vertices.size() / 3);
  forget(normals);
  const Times known = time_of([&] { threedfa::vertex_normals(mesh.vertices, rings, normals); });
  require_same(within(1e-3f, normals, expected), "normals of known triangles");
  rows.push_back(
      {"vertex normals, triangles known", triangles, known, "scatter loop", scatter.least});

  benchmark_drawing(mesh, textbook, box_time, generator);
}

// --- pictures ------------------------------------------------------------------------------------

void benchmark_preprocessing(std::mt19937& generator) {
  const int sizes[][2] = {{480, 640}, {720, 1080}, {1080, 1920}, {2000, 3000}, {3000, 4000}};
  for (const auto& size : sizes) {
    const int height = size[0], width = size[1];
    const int out_height = height * 9 / 16, out_width = width * 9 / 16;
    std::vector<std::uint8_t> pixels(static_cast<std::size_t>(3 * height * width));
    for (auto& value : pixels) value = static_cast<std::uint8_t>(generator());
    const threedfa::ImageView image{pixels.data(), height, width, 3, std::ptrdiff_t{3} * width};
    const threedfa::Normalization norm{{104, 117, 123}, {1, 1, 1}, true};
    Floats ours(static_cast<std::size_t>(3 * out_height * out_width)), theirs(ours.size());
    std::vector<std::uint8_t> small(ours.size());
    const Times fast =
        time_of([&] { threedfa::resize_normalize(image, out_height, out_width, norm, ours); });
    const Times slow = time_of([&] {
      threedfa::crop_resize(image, {0, 0, double(width), double(height)}, out_height, out_width,
                            small);
      const std::size_t plane = small.size() / 3;
      for (std::size_t c = 0; c < 3; ++c) {
        for (std::size_t i = 0; i < plane; ++i) {
          theirs[c * plane + i] = static_cast<float>(small[3 * i + 2 - c]) - norm.mean[c];
        }
      }
    });
    require_same(ours == theirs, "pre-processing");
    rows.push_back({"resize and normalise, megapixels", double(height) * width / 1e6, fast,
                    "our resize, then convert", slow.least});
  }
}

void print_table() {
  std::printf("loops: %s; milliseconds of one thread\n%-38s %10s %9s %9s %9s %9s %8s\n",
              threedfa::simd::loops().name, "", "size", "least", "median", "p99", "other", "ratio");
  for (const Row& row : rows) {
    std::printf("%-38s %10.4g %9.4f %9.4f %9.4f %9.4f %7.2fx  %s\n", row.name.c_str(), row.size,
                row.ours.least, row.ours.median, row.ours.p99, row.other,
                row.other / row.ours.least, row.alternative.c_str());
  }
}

void print_json() {
  std::printf("{\"loops\": \"%s\", \"unit\": \"ms\", \"rows\": [", threedfa::simd::loops().name);
  for (const Row& row : rows) {
    std::printf(
        "%s\n  {\"name\": \"%s\", \"size\": %g, \"least\": %g, \"median\": %g, \"p99\": %g, "
        "\"alternative\": \"%s\", \"other\": %g, \"ratio\": %.3f}",
        &row == rows.data() ? "" : ",", row.name.c_str(), row.size, row.ours.least, row.ours.median,
        row.ours.p99, row.alternative.c_str(), row.other, row.other / row.ours.least);
  }
  std::printf("\n]}\n");
}

}  // namespace

int main(int count, char** arguments) {
  const bool json = count == 2 && std::string(arguments[1]) == "--json";
  if (count > 1 && !json) {
    std::fprintf(stderr, "usage: %s [--json]\n", arguments[0]);
    return 2;
  }
  std::mt19937 generator(1);
  benchmark_nms(generator);
  benchmark_detection(generator);
  benchmark_reconstruction(generator);
  benchmark_meshes(generator);
  benchmark_preprocessing(generator);
  json ? print_json() : print_table();
  return 0;
}
