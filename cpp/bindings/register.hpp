#pragma once

#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace threedfa::bindings {

void register_detection(py::module_& m);
void register_image(py::module_& m);
void register_mesh(py::module_& m);
void register_model(py::module_& m);
void register_text(py::module_& m);

}  // namespace threedfa::bindings
