#include <pybind11/gil_safe_call_once.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <exception>
#include <memory>
#include <string_view>

#include "arrays.hpp"
#include "register.hpp"
#include "threedfa/camera.hpp"
#include "threedfa/morphable_model.hpp"
#include "threedfa/pose.hpp"
#include "threedfa/subdivision.hpp"

namespace threedfa::bindings {
namespace {

/// A read-only array over memory that `owner` (the Python model) keeps alive.
template <class T>
py::array view_of(py::handle owner, Span<const T> values, std::vector<py::ssize_t> shape) {
  py::array array(py::dtype::of<T>(), std::move(shape), {}, values.data(), owner);
  array.attr("flags").attr("writeable") = false;
  return array;
}

const MorphableModel& self_of(py::handle owner) { return owner.cast<const MorphableModel&>(); }

py::ssize_t size(std::size_t value) { return static_cast<py::ssize_t>(value); }

template <bool kDense>
Array<float> py_reconstruct(const MorphableModel& model, py::handle shape_in,
                            py::handle expression_in) {
  const auto shape = reals(shape_in, "shape_coeffs", {size(model.shape_count())});
  const auto expression =
      reals(expression_in, "expression_coeffs", {size(model.expression_count())});
  Array<float> out({size(kDense ? model.vertex_count() : model.landmark_count()), py::ssize_t{3}});
  const auto target = writable(out);
  py::gil_scoped_release release;
  if constexpr (kDense) {
    model.reconstruct(view(shape), view(expression), target);
  } else {
    model.reconstruct_landmarks(view(shape), view(expression), target);
  }
  return out;
}

Array<float> py_subdivide(const Subdivision& subdivision, py::handle base_in) {
  const auto base = reals(base_in, "values", {size(subdivision.base_count()), kAny});
  Array<float> out({size(subdivision.dense_count()), base.shape(1)});
  const auto target = writable(out);
  py::gil_scoped_release release;
  subdivision.apply(view(base), target);
  return out;
}

CameraMatrix camera_of(const float* values) {
  CameraMatrix camera;
  std::copy_n(values, camera.size(), camera.begin());
  return camera;
}

/// Parameters (N, 12 + S + E) and regions (N, 4) to image points (N, V or L, 3).
Array<float> py_project(const MorphableModel& model, py::handle params_in, py::handle rois_in,
                        int input_size, bool dense) {
  const std::size_t modes = model.shape_count() + model.expression_count();
  const auto params = reals(params_in, "params", {kAny, size(12 + modes)});
  const auto rois = reals<double>(rois_in, "rois", {params.shape(0), 4});
  const auto count = static_cast<std::size_t>(params.shape(0));
  const std::size_t points = dense ? model.vertex_count() : model.landmark_count();
  Array<float> out({params.shape(0), size(points), py::ssize_t{3}});
  const auto target = writable(out);

  py::gil_scoped_release release;
  std::vector<float> coefficients(count * modes);
  for (std::size_t i = 0; i < count; ++i) {
    std::copy_n(params.data() + i * (12 + modes) + 12, modes, coefficients.data() + i * modes);
  }
  if (dense) {
    model.reconstruct_many(coefficients, count, target);
  } else {
    model.reconstruct_landmarks_many(coefficients, count, target);
  }
  for (std::size_t i = 0; i < count; ++i) {
    const Span<float> face(target.data() + i * points * 3, points * 3);
    project(face, camera_of(params.data() + i * (12 + modes)), roi(rois.data() + 4 * i), input_size,
            face);
  }
  return out;
}

py::tuple py_decompose(py::handle camera_in) {
  const Pose pose = decompose(fixed<12>(camera_in, "camera"));
  Array<float> rotation({3, 3}), translation(3);
  std::copy(pose.rotation.begin(), pose.rotation.end(), rotation.mutable_data());
  std::copy(pose.translation.begin(), pose.translation.end(), translation.mutable_data());
  return py::make_tuple(pose.angles.yaw, pose.angles.pitch, pose.angles.roll, rotation, translation,
                        pose.scale);
}

Array<float> py_rotation_from_angles(float yaw, float pitch, float roll) {
  const Rotation rotation = rotation_from_angles({yaw, pitch, roll});
  Array<float> out({3, 3});
  std::copy(rotation.begin(), rotation.end(), out.mutable_data());
  return out;
}

Array<float> py_image_projection(py::handle camera_in, py::handle roi_in, int input_size) {
  const auto region = reals<double>(roi_in, "roi", {4});
  const CameraMatrix matrix =
      image_projection(fixed<12>(camera_in, "camera"), roi(region.data()), input_size);
  Array<float> out({3, 4});
  std::copy(matrix.begin(), matrix.end(), out.mutable_data());
  return out;
}

/// As pybind11's own, but for messages with paths that are not UTF-8.
void register_file_error(const py::module_& m) {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::object> type;
  type.call_once_and_store_result([&m]() -> py::object {
    return py::exception<FileError>(m, "FileError", PyExc_RuntimeError);
  });
  py::register_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const FileError& error) {
      const std::string_view what = error.what();
      const auto text = py::reinterpret_steal<py::object>(
          PyUnicode_DecodeUTF8(what.data(), size(what.size()), "surrogateescape"));
      PyErr_SetObject(type.get_stored().ptr(), text.ptr());
    }
  });
}

}  // namespace

void register_model(py::module_& m) {
  register_file_error(m);

  py::class_<MorphableModel, std::unique_ptr<MorphableModel>>(m, "MorphableModel")
      .def_static(
          "load",
          [](const std::filesystem::path& path) {
            py::gil_scoped_release release;
            return std::make_unique<MorphableModel>(MorphableModel::load(path.u8string()));
          },
          py::arg("path"))
      .def_property_readonly("mean",
                             [](py::handle self) {
                               const auto& model = self_of(self);
                               return view_of(self, model.mean(), {size(model.vertex_count()), 3});
                             })
      .def_property_readonly("shape_basis",
                             [](py::handle self) {
                               const auto& model = self_of(self);
                               return view_of(
                                   self, model.shape_basis(),
                                   {size(model.shape_count()), size(model.vertex_count()), 3});
                             })
      .def_property_readonly("expression_basis",
                             [](py::handle self) {
                               const auto& model = self_of(self);
                               return view_of(
                                   self, model.expression_basis(),
                                   {size(model.expression_count()), size(model.vertex_count()), 3});
                             })
      .def_property_readonly("triangles",
                             [](py::handle self) {
                               const auto& model = self_of(self);
                               return view_of(self, model.triangles(),
                                              {size(model.triangle_count()), 3});
                             })
      .def_property_readonly("landmark_vertices",
                             [](py::handle self) {
                               const auto& model = self_of(self);
                               return view_of(self, model.landmark_vertices(),
                                              {size(model.landmark_count()), 3});
                             })
      .def_property_readonly("landmark_weights",
                             [](py::handle self) {
                               const auto& model = self_of(self);
                               return view_of(self, model.landmark_weights(),
                                              {size(model.landmark_count()), 3});
                             })
      .def_property_readonly("uv",
                             [](py::handle self) -> py::object {
                               const auto& model = self_of(self);
                               if (model.uv().empty()) return py::none();
                               return view_of(self, model.uv(), {size(model.vertex_count()), 2});
                             })
      .def_property_readonly("point_sets",
                             [](py::handle self) {
                               py::dict sets;
                               for (const PointSet& set : self_of(self).point_sets()) {
                                 const py::ssize_t count = size(set.vertices.size() / 3);
                                 sets[py::str(set.name)] =
                                     py::make_tuple(view_of(self, set.vertices, {count, 3}),
                                                    view_of(self, set.weights, {count, 3}));
                               }
                               return sets;
                             })
      .def("reconstruct", &py_reconstruct<true>, py::arg("shape_coeffs"),
           py::arg("expression_coeffs"))
      .def("reconstruct_landmarks", &py_reconstruct<false>, py::arg("shape_coeffs"),
           py::arg("expression_coeffs"))
      .def("project", &py_project, py::arg("params"), py::arg("rois"), py::kw_only(),
           py::arg("input_size"), py::arg("dense"));

  py::class_<Subdivision, std::unique_ptr<Subdivision>>(m, "Subdivision")
      .def(py::init([](py::handle triangles_in, py::ssize_t vertex_count) {
             to_int(vertex_count, "vertex_count");
             const auto triangles = triangle_indices(triangles_in, vertex_count);
             py::gil_scoped_release release;
             return std::make_unique<Subdivision>(view(triangles),
                                                  static_cast<std::size_t>(vertex_count));
           }),
           py::arg("triangles"), py::arg("vertex_count"))
      .def_property_readonly("triangles",
                             [](py::handle self) {
                               const auto& subdivision = self.cast<const Subdivision&>();
                               return view_of(self, subdivision.triangles(),
                                              {size(subdivision.triangles().size() / 3), 3});
                             })
      .def_property_readonly("edges",
                             [](py::handle self) {
                               const auto& subdivision = self.cast<const Subdivision&>();
                               return view_of(self, subdivision.edges(),
                                              {size(subdivision.edges().size() / 2), 2});
                             })
      .def("apply", &py_subdivide, py::arg("values"));

  m.def("decompose", &py_decompose, py::arg("camera"));
  m.def("rotation_from_angles", &py_rotation_from_angles, py::arg("yaw"), py::arg("pitch"),
        py::arg("roll"));
  m.def("image_projection", &py_image_projection, py::arg("camera"), py::arg("roi"),
        py::arg("input_size"));
}

}  // namespace threedfa::bindings
