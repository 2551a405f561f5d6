#include <doctest/doctest.h>

#include <cstdlib>
#include <new>
#include <random>
#include <vector>

#include "threedfa/threedfa.hpp"

namespace {

long allocations = 0;

}  // namespace

// Counts for the whole program; each test looks at the difference alone.
void* operator new(std::size_t size) {
  ++allocations;
  if (void* const memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(size);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

TEST_CASE("allocations: none in kernels that write into the caller's memory") {
  using namespace threedfa;
  std::mt19937 random(1);
  std::uniform_real_distribution<float> place(0, 60);
  constexpr std::size_t kVertices = 300;
  std::vector<float> vertices(3 * kVertices), normals(3 * kVertices), greys(kVertices);
  for (float& value : vertices) value = place(random);
  std::vector<std::int32_t> triangles(3 * 500);
  for (auto& index : triangles) index = static_cast<std::int32_t>(random() % kVertices);

  constexpr int kSide = 64;
  constexpr std::size_t kPixels = std::size_t{kSide} * kSide;
  std::vector<float> depth(kPixels), weights(3 * kPixels), image(3 * kPixels);
  std::vector<std::int32_t> owners(kPixels);
  RasterBuffers buffers;
  buffers.height = buffers.width = kSide;
  buffers.depth = depth.data();
  buffers.triangle = owners.data();
  buffers.barycentric = weights.data();
  buffers.image = image.data();

  std::vector<std::uint8_t> picture(3 * kPixels, 100);
  const ImageView view{picture.data(), kSide, kSide, 3, 3 * kSide};
  const Canvas canvas{picture.data(), kSide, kSide, 3 * kSide};
  std::vector<float> samples(3 * kVertices);

  constexpr std::size_t kModes = 100, kFaces = 9;
  std::vector<float> basis(kModes * 3 * kVertices, 0.5f), coefficients(kFaces * kModes, 2.0f);
  std::vector<std::int16_t> steps(basis.size(), 3);
  LinearModel model, packed;
  model.mean = packed.mean = vertices;
  for (std::size_t k = 0; k < kModes; ++k) {
    model.basis.emplace_back(basis.data() + k * vertices.size(), vertices.size());
    packed.steps.emplace_back(steps.data() + k * vertices.size(), vertices.size());
    packed.scales.push_back(0.25f);
  }
  std::vector<float> faces(kFaces * vertices.size());

  const Subdivision subdivision(triangles, kVertices);
  std::vector<float> dense(3 * subdivision.dense_count());

  const VertexRings rings(triangles, kVertices);
  std::vector<double> normals_workspace;
  PaintWorkspace paint_workspace;
  const auto run = [&] {
    clear(buffers);
    rasterize(vertices, triangles, vertices, 3, buffers);
    vertex_normals(vertices, triangles, normals_workspace, normals);
    vertex_normals(vertices, rings, normals);
    shade(vertices, normals, Lighting{}, greys);
    paint_mesh(canvas, vertices, triangles, greys, paint_workspace);
    sample_bilinear(view, vertices, 3, samples);
    model.evaluate_many(coefficients, kFaces, faces);
    packed.evaluate_many(coefficients, kFaces, faces);
    subdivision.apply(vertices, dense);
  };
  const long start = allocations;
  run();
  CHECK(allocations > start);  // the workspaces: it does count
  const long before = allocations;
  for (int round = 0; round < 3; ++round) run();
  const long after = allocations;  // CHECK allocates too
  CHECK(after == before);
}
