#include "arrays.hpp"
#include "register.hpp"
#include "threedfa/crop.hpp"
#include "threedfa/roi.hpp"
#include "threedfa/texture.hpp"

namespace threedfa::bindings {
namespace {

Array<double> to_array(const Roi& region) {
  Array<double> out(4);
  double* values = out.mutable_data();
  values[0] = region.x1;
  values[1] = region.y1;
  values[2] = region.x2;
  values[3] = region.y2;
  return out;
}

Array<double> py_roi_from_box(py::handle box_in, double scale, double shift_y, bool integer_side) {
  const auto box = reals<double>(box_in, "box", {4});
  const double* b = box.data();
  return to_array(roi_from_box(b[0], b[1], b[2], b[3], {scale, shift_y, integer_side}));
}

Array<double> py_roi_from_landmarks(py::handle points_in, double scale) {
  const auto points = reals(points_in, "landmarks", {kAny, kAny});
  return to_array(roi_from_landmarks(view(points), to_int(points.shape(1), "columns"), scale));
}

Array<std::uint8_t> py_crop_resize(py::handle image_in, py::handle roi_in, py::ssize_t height,
                                   py::ssize_t width) {
  const auto image = pixels(image_in, "image", kAny);
  const auto region = reals<double>(roi_in, "roi", {4});
  check_extent(height, "height");
  check_extent(width, "width");
  Array<std::uint8_t> out({height, width, image.shape(2)});
  const auto target = writable(out);
  py::gil_scoped_release release;
  crop_resize(view(image), roi(region.data()), static_cast<int>(height), static_cast<int>(width),
              target);
  return out;
}

Normalization normalization(py::handle mean, py::handle scale, bool reverse_channels) {
  return {fixed<3>(mean, "mean"), fixed<3>(scale, "scale"), reverse_channels};
}

Array<float> py_crop_normalize(py::handle image_in, py::handle rois_in, py::ssize_t size,
                               py::handle mean, py::handle scale, bool reverse_channels) {
  const auto image = pixels(image_in);
  const auto rois = reals<double>(rois_in, "rois", {kAny, 4});
  check_extent(size, "size");
  const Normalization norm = normalization(mean, scale, reverse_channels);
  const py::ssize_t count = rois.shape(0);
  Array<float> out({count, py::ssize_t{3}, size, size});
  float* data = out.mutable_data();
  const auto plane = static_cast<std::size_t>(3 * size * size);
  py::gil_scoped_release release;
  for (py::ssize_t i = 0; i < count; ++i) {
    crop_resize_normalize(view(image), roi(rois.data() + 4 * i), static_cast<int>(size),
                          static_cast<int>(size), norm,
                          {data + static_cast<std::size_t>(i) * plane, plane});
  }
  return out;
}

Array<float> py_resize_normalize(py::handle image_in, py::ssize_t height, py::ssize_t width,
                                 py::handle mean, py::handle scale, bool reverse_channels) {
  const auto image = pixels(image_in);
  check_extent(height, "height");
  check_extent(width, "width");
  const Normalization norm = normalization(mean, scale, reverse_channels);
  Array<float> out({py::ssize_t{1}, py::ssize_t{3}, height, width});
  const auto target = writable(out);
  py::gil_scoped_release release;
  resize_normalize(view(image), static_cast<int>(height), static_cast<int>(width), norm, target);
  return out;
}

Array<float> py_resize_normalize_grey(py::handle image_in, py::ssize_t height, py::ssize_t width,
                                      float mean, float scale) {
  const auto image = pixels(image_in);
  check_extent(height, "height");
  check_extent(width, "width");
  Array<float> out({py::ssize_t{1}, py::ssize_t{1}, height, width});
  const auto target = writable(out);
  py::gil_scoped_release release;
  resize_normalize_grey(view(image), static_cast<int>(height), static_cast<int>(width), mean, scale,
                        target);
  return out;
}

Array<float> py_sample_bilinear(py::handle image_in, py::handle points_in) {
  const auto image = pixels(image_in, "image", kAny);
  const auto points = reals(points_in, "points", {kAny, kAny});
  Array<float> out({points.shape(0), image.shape(2)});
  const auto target = writable(out);
  const int stride = to_int(points.shape(1), "columns");
  py::gil_scoped_release release;
  sample_bilinear(view(image), view(points), stride, target);
  return out;
}

Array<std::uint8_t> py_uv_texture(py::handle image_in, py::handle vertices_in, py::handle uv_in,
                                  py::handle triangles_in, py::ssize_t size) {
  const auto image = pixels(image_in);
  const auto vertices = reals(vertices_in, "vertices", {kAny, 3});
  const auto uv = reals(uv_in, "uv", {vertices.shape(0), 2});
  const auto triangles = triangle_indices(triangles_in, vertices.shape(0));
  check_extent(size, "size");
  Array<std::uint8_t> out({size, size, py::ssize_t{3}});
  const auto target = writable(out);
  py::gil_scoped_release release;
  uv_texture(view(image), view(vertices), view(uv), view(triangles), static_cast<int>(size),
             target);
  return out;
}

py::tuple py_texture_map(py::handle image_in, py::handle points_in, py::handle normals_in,
                         py::handle occluders_in, py::handle uv_in, py::handle triangles_in,
                         py::ssize_t size) {
  const auto image = pixels(image_in, "image", kAny);
  const auto points = reals(points_in, "points", {kAny, kAny, 3});
  const py::ssize_t looks = points.shape(0), vertices = points.shape(1);
  const auto normals = reals(normals_in, "normals", {looks, vertices, 3});
  const auto occluders = reals(occluders_in, "occluders", {vertices, 3});
  const auto uv = reals(uv_in, "uv", {vertices, 2});
  const auto triangles = triangle_indices(triangles_in, vertices);
  check_extent(size, "size");
  Array<std::uint8_t> colors({looks, size, size, image.shape(2)});
  Array<float> visibility({looks, size, size});
  const auto color_target = writable(colors);
  const auto visibility_target = writable(visibility);
  {
    py::gil_scoped_release release;
    texture_map(view(image), view(points), view(normals), view(occluders), view(uv),
                view(triangles), static_cast<int>(size), color_target, visibility_target);
  }
  return py::make_tuple(colors, visibility);
}

}  // namespace

void register_image(py::module_& m) {
  m.def("roi_from_box", &py_roi_from_box, py::arg("box"), py::kw_only(), py::arg("scale"),
        py::arg("shift_y"), py::arg("integer_side"));
  m.def("roi_from_landmarks", &py_roi_from_landmarks, py::arg("landmarks"), py::kw_only(),
        py::arg("scale"));
  m.def("crop_resize", &py_crop_resize, py::arg("image"), py::arg("roi"), py::arg("height"),
        py::arg("width"));
  m.def("crop_normalize", &py_crop_normalize, py::arg("image"), py::arg("rois"), py::arg("size"),
        py::kw_only(), py::arg("mean"), py::arg("scale"), py::arg("reverse_channels"));
  m.def("resize_normalize", &py_resize_normalize, py::arg("image"), py::arg("height"),
        py::arg("width"), py::kw_only(), py::arg("mean"), py::arg("scale"),
        py::arg("reverse_channels"));
  m.def("resize_normalize_grey", &py_resize_normalize_grey, py::arg("image"), py::arg("height"),
        py::arg("width"), py::kw_only(), py::arg("mean"), py::arg("scale"));
  m.def("sample_bilinear", &py_sample_bilinear, py::arg("image"), py::arg("points"));
  m.def("uv_texture", &py_uv_texture, py::arg("image"), py::arg("vertices"), py::arg("uv"),
        py::arg("triangles"), py::arg("size"));
  m.def("texture_map", &py_texture_map, py::arg("image"), py::arg("points"), py::arg("normals"),
        py::arg("occluders"), py::arg("uv"), py::arg("triangles"), py::arg("size"));
}

}  // namespace threedfa::bindings
