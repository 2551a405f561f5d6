// Uses the installed headers and library; exits with 1 at the first wrong result.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <threedfa/threedfa.hpp>
#include <vector>

namespace {

void check(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "wrong: %s\n", what);
  std::exit(1);
}

bool near(float a, float b) { return std::abs(a - b) < 1e-4f; }

// A safetensors file with one triangle and one shape mode, in memory.
std::vector<std::byte> model_file() {
  std::string header =
      R"({"mean":{"dtype":"F32","shape":[3,3],"data_offsets":[0,36]},)"
      R"("shape_basis":{"dtype":"F32","shape":[1,3,3],"data_offsets":[36,72]},)"
      R"("expression_basis":{"dtype":"F32","shape":[0,3,3],"data_offsets":[72,72]},)"
      R"("triangles":{"dtype":"I32","shape":[1,3],"data_offsets":[72,84]},)"
      R"("landmark_vertices":{"dtype":"I32","shape":[1,3],"data_offsets":[84,96]},)"
      R"("landmark_weights":{"dtype":"F32","shape":[1,3],"data_offsets":[96,108]}})";
  while (header.size() % 8 != 0) header += ' ';
  const float floats[18] = {0, 0, 0, 30, 0, 0, 0, 30, 0,   // mean
                            0, 0, 5, 0,  0, 5, 0, 0,  5};  // shape basis: towards the viewer
  const std::int32_t indices[6] = {0, 1, 2, 1, 0, 0};
  const float weights[3] = {1, 0, 0};

  std::vector<std::byte> bytes;
  const auto append = [&](const void* data, std::size_t size) {
    const auto* const from = static_cast<const std::byte*>(data);
    bytes.insert(bytes.end(), from, from + size);
  };
  const std::uint64_t size = header.size();
  append(&size, sizeof size);
  append(header.data(), header.size());
  append(floats, sizeof floats);
  append(indices, sizeof indices);
  append(weights, sizeof weights);
  return bytes;
}

}  // namespace

int main() {
  const std::vector<float> boxes{0, 0, 10, 10, 1, 1, 11, 11, 50, 50, 60, 60};
  const std::vector<float> scores{0.6f, 0.9f, 0.5f};
  check(threedfa::nms(boxes, scores, 0.3) == std::vector<std::int64_t>{1, 2}, "nms");

  const auto config = threedfa::PriorConfig::faceboxes();
  std::vector<float> priors(4 * threedfa::prior_count(64, 64, config));
  threedfa::prior_boxes(64, 64, config, priors);
  check(priors.size() == 4 * (4 * 21 + 1 + 1), "prior count");

  const auto roi = threedfa::roi_from_box(0, 0, 100, 100, {1.2, 0.0, false});
  check(roi.x1 == -10 && roi.y2 == 110, "region of interest");
  const std::vector<std::uint8_t> pixels(3 * 120 * 120, 7);
  const threedfa::ImageView image{pixels.data(), 120, 120, 3, 360};
  std::vector<std::uint8_t> crop(3 * 60 * 60);
  threedfa::crop_resize(image, {0, 0, 120, 120}, 60, 60, crop);
  check(crop[0] == 7 && crop.back() == 7, "crop");

  const auto bytes = model_file();
  const threedfa::MorphableModel model(threedfa::TensorFile::parse(bytes, "memory"));
  const std::vector<float> shape{2};
  std::vector<float> vertices(9), landmark(3), normals(9);
  model.reconstruct(shape, {}, vertices);
  model.reconstruct_landmarks(shape, {}, landmark);
  check(near(vertices[3], 30) && near(vertices[5], 10), "reconstruction");
  check(landmark == std::vector<float>{vertices[3], vertices[4], vertices[5]}, "landmark");
  threedfa::vertex_normals(vertices, model.triangles(), normals);
  check(near(normals[2], 1), "normals");

  const threedfa::Rotation r = threedfa::rotation_from_angles({0, 0, 20});
  const threedfa::CameraMatrix camera{r[0], r[1], r[2], 1,    r[3], r[4],
                                      r[5], 60,   r[6], r[7], r[8], 0};
  check(near(threedfa::decompose(camera).angles.roll, 20), "pose");
  threedfa::project(vertices, camera, {0, 0, 120, 120}, 120, vertices);
  check(near(vertices[0], 0) && near(vertices[1], 60) && near(vertices[2], 10), "projection");

  std::vector<float> depth(120 * 120);
  threedfa::RasterBuffers buffers;
  buffers.height = buffers.width = 120;
  buffers.depth = depth.data();
  threedfa::clear(buffers);
  threedfa::rasterize(vertices, model.triangles(), {}, 0, buffers);
  check(near(depth[60 * 120 + 12], 10) && std::isinf(depth[0]), "rasterizer");

  bool refused = false;
  try {
    threedfa::MorphableModel::load("no such file");
  } catch (const threedfa::FileError&) {
    refused = true;  // the exception crosses the library's border
  }
  check(refused, "exception");
  std::puts("threedfa works");
  return 0;
}
