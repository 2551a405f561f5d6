#include <pybind11/stl.h>

#include <optional>

#include "arrays.hpp"
#include "register.hpp"
#include "threedfa/normals.hpp"
#include "threedfa/rasterizer.hpp"
#include "threedfa/shading.hpp"

namespace threedfa::bindings {
namespace {

Array<float> py_vertex_normals(py::handle vertices_in, py::handle triangles_in) {
  const auto vertices = reals(vertices_in, "vertices", {kAny, 3});
  const auto triangles = triangle_indices(triangles_in, vertices.shape(0));
  Array<float> out(shape_of(vertices));
  const auto target = writable(out);
  py::gil_scoped_release release;
  vertex_normals(view(vertices), view(triangles), target);
  return out;
}

py::tuple py_rasterize(py::handle vertices_in, py::handle triangles_in, py::ssize_t height,
                       py::ssize_t width, const std::optional<py::object>& attributes_in,
                       const std::optional<py::object>& background_in) {
  const auto vertices = reals(vertices_in, "vertices", {kAny, 3});
  const auto triangles = triangle_indices(triangles_in, vertices.shape(0));
  check_extent(height, "height");
  check_extent(width, "width");
  if (background_in && !attributes_in) {
    throw py::value_error("background: expected together with attributes, got it alone");
  }

  Array<float> depth({height, width}), barycentric({height, width, py::ssize_t{3}});
  Array<std::int32_t> triangle({height, width});
  Array<float> attributes, image;
  RasterBuffers buffers;
  buffers.height = static_cast<int>(height);
  buffers.width = static_cast<int>(width);
  buffers.depth = depth.mutable_data();
  buffers.triangle = triangle.mutable_data();
  buffers.barycentric = barycentric.mutable_data();
  int channels = 0;
  if (attributes_in) {
    attributes = reals(*attributes_in, "attributes", {vertices.shape(0), kAny});
    channels = to_int(attributes.shape(1), "channels");
    image = Array<float>({height, width, attributes.shape(1)});
    if (background_in) {
      const auto background =
          reals(*background_in, "background", {height, width, attributes.shape(1)});
      std::copy_n(background.data(), background.size(), image.mutable_data());
    } else {
      std::fill_n(image.mutable_data(), image.size(), 0.0f);
    }
    buffers.image = image.mutable_data();
  }
  {
    py::gil_scoped_release release;
    clear(buffers);
    rasterize(view(vertices), view(triangles), view(attributes), channels, buffers);
  }
  return py::make_tuple(depth, triangle, barycentric,
                        attributes_in ? py::object(std::move(image)) : py::none());
}

Array<float> py_shade(py::handle vertices_in, py::handle normals_in) {
  const auto vertices = reals(vertices_in, "vertices", {kAny, 3});
  const auto normals = reals(normals_in, "normals", {vertices.shape(0), 3});
  Array<float> out(vertices.shape(0));
  const auto target = writable(out);
  py::gil_scoped_release release;
  shade(view(vertices), view(normals), Lighting{}, target);
  return out;
}

}  // namespace

void register_mesh(py::module_& m) {
  m.def("vertex_normals", &py_vertex_normals, py::arg("vertices"), py::arg("triangles"));
  m.def("rasterize", &py_rasterize, py::arg("vertices"), py::arg("triangles"), py::arg("height"),
        py::arg("width"), py::kw_only(), py::arg("attributes") = py::none(),
        py::arg("background") = py::none());
  m.def("shade", &py_shade, py::arg("vertices"), py::arg("normals"));
}

}  // namespace threedfa::bindings
