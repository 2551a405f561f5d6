#include <pybind11/stl.h>

#include <array>
#include <memory>
#include <optional>

#include "arrays.hpp"
#include "register.hpp"
#include "threedfa/normals.hpp"
#include "threedfa/painting.hpp"
#include "threedfa/rasterizer.hpp"
#include "threedfa/shading.hpp"
#include "threedfa/vertex_rings.hpp"

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

Array<float> py_ring_normals(const VertexRings& rings, py::handle vertices_in) {
  const auto count = static_cast<py::ssize_t>(rings.vertex_count());
  const auto vertices = reals(vertices_in, "vertices", {count, 3});
  Array<float> out(shape_of(vertices));
  const auto target = writable(out);
  py::gil_scoped_release release;
  vertex_normals(view(vertices), rings, target);
  return out;
}

py::tuple py_rasterize(py::handle vertices_in, py::handle triangles_in, py::ssize_t height,
                       py::ssize_t width, const std::optional<py::object>& attributes_in,
                       const std::optional<py::object>& background_in,
                       const std::optional<std::array<py::object, 4>>& out) {
  const auto vertices = reals(vertices_in, "vertices", {kAny, 3});
  const auto triangles = triangle_indices(triangles_in, vertices.shape(0));
  check_extent(height, "height");
  check_extent(width, "width");
  if (static_cast<std::size_t>(height) * static_cast<std::size_t>(width) > kMostRasterPixels) {
    throw py::value_error("height, width: expected at most " + std::to_string(kMostRasterPixels) +
                          " pixels in all, got " + std::to_string(height) + " x " +
                          std::to_string(width));
  }
  if (background_in && !attributes_in) {
    throw py::value_error("background: expected together with attributes, got it alone");
  }

  if (out && (*out)[3].is_none() == attributes_in.has_value()) {
    throw py::value_error("out: expected an image with attributes and none without");
  }
  const auto given = [&out](std::size_t i) { return out ? (*out)[i] : py::object(py::none()); };
  auto depth = output<float>(given(0), "out.depth", {height, width});
  auto triangle = output<std::int32_t>(given(1), "out.triangle", {height, width});
  auto barycentric = output<float>(given(2), "out.barycentric", {height, width, 3});
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
    image = output<float>(given(3), "out.image", {height, width, attributes.shape(1)});
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

/// Draws into `canvas` itself.
void py_paint_mesh(py::handle canvas_in, py::handle vertices_in, py::handle triangles_in,
                   py::handle colors_in) {
  if (canvas_in.is_none()) throw py::type_error("canvas: expected an array, got None");
  auto canvas = output<std::uint8_t>(canvas_in, "canvas", {kAny, kAny, 3});
  const auto vertices = reals(vertices_in, "vertices", {kAny, 3});
  const auto triangles = triangle_indices(triangles_in, vertices.shape(0));
  const bool grey = as_array(colors_in, "colors").ndim() == 1;
  const auto colors = reals(colors_in, "colors",
                            grey ? std::vector<py::ssize_t>{vertices.shape(0)}
                                 : std::vector<py::ssize_t>{vertices.shape(0), 3});
  const Canvas target{canvas.mutable_data(), to_int(canvas.shape(0), "height"),
                      to_int(canvas.shape(1), "width"), 3 * canvas.shape(1)};
  py::gil_scoped_release release;
  PaintWorkspace workspace;
  paint_mesh(target, view(vertices), view(triangles), view(colors), workspace);
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
  py::class_<VertexRings, std::unique_ptr<VertexRings>>(m, "VertexRings")
      .def(py::init([](py::handle triangles_in, py::ssize_t vertex_count) {
             to_int(vertex_count, "vertex_count");
             const auto triangles = triangle_indices(triangles_in, vertex_count);
             py::gil_scoped_release release;
             return std::make_unique<VertexRings>(view(triangles),
                                                  static_cast<std::size_t>(vertex_count));
           }),
           py::arg("triangles"), py::arg("vertex_count"))
      .def("normals", &py_ring_normals, py::arg("vertices"));
  m.def("vertex_normals", &py_vertex_normals, py::arg("vertices"), py::arg("triangles"));
  m.def("rasterize", &py_rasterize, py::arg("vertices"), py::arg("triangles"), py::arg("height"),
        py::arg("width"), py::kw_only(), py::arg("attributes") = py::none(),
        py::arg("background") = py::none(), py::arg("out") = py::none());
  m.def("paint_mesh", &py_paint_mesh, py::arg("canvas"), py::arg("vertices"), py::arg("triangles"),
        py::arg("colors"));
  m.def("shade", &py_shade, py::arg("vertices"), py::arg("normals"));
}

}  // namespace threedfa::bindings
