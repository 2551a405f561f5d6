// Reconstructs the mean face of a model, turned 30 degrees, as a regressor would see it in a region
// of an image; prints the head pose and the landmarks.
//
//   reconstruct model.safetensors

#include <cstdio>
#include <exception>
#include <threedfa/threedfa.hpp>
#include <vector>

namespace {

// What a regressor's first 12 parameters hold. The face is made 80 pixels high and put in the
// middle of the 120 x 120 input.
threedfa::CameraMatrix turned_camera(const threedfa::MorphableModel& model, float yaw) {
  float low = model.mean()[1], high = low;
  for (std::size_t i = 1; i < model.mean().size(); i += 3) {
    low = model.mean()[i] < low ? model.mean()[i] : low;
    high = model.mean()[i] > high ? model.mean()[i] : high;
  }
  const float scale = 80.0f / (high - low);
  const threedfa::Rotation r = threedfa::rotation_from_angles({yaw, 0, 0});
  return {scale * r[0], scale * r[1], scale * r[2], 60,           scale * r[3], scale * r[4],
          scale * r[5], 60,           scale * r[6], scale * r[7], scale * r[8], 0};
}

void run(const char* path) {
  const auto model = threedfa::MorphableModel::load(path);
  const std::vector<float> shape(model.shape_count()), expression(model.expression_count());
  const auto camera = turned_camera(model, 30);
  const auto roi = threedfa::roi_from_box(100, 100, 300, 300);

  std::vector<float> landmarks(3 * model.landmark_count());
  model.reconstruct_landmarks(shape, expression, landmarks);         // object space
  threedfa::project(landmarks, camera, roi, 120, landmarks);         // image pixels
  const threedfa::Angles head = threedfa::decompose(camera).angles;  // degrees

  std::printf("%zu vertices, %zu triangles\n", model.vertex_count(), model.triangle_count());
  std::printf("yaw %.1f pitch %.1f roll %.1f\n", static_cast<double>(head.yaw),
              static_cast<double>(head.pitch), static_cast<double>(head.roll));
  for (std::size_t i = 0; i < landmarks.size(); i += 3) {
    std::printf("%8.2f %8.2f %8.2f\n", static_cast<double>(landmarks[i]),
                static_cast<double>(landmarks[i + 1]), static_cast<double>(landmarks[i + 2]));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s model.safetensors\n", argv[0]);
    return 2;
  }
  try {
    run(argv[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
