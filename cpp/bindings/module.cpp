#include <pybind11/pybind11.h>

#include "register.hpp"

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "The kernels of threedfa; see threedfa.ops for their documentation.";
  m.attr("__version__") = THREEDFA_VERSION;
  threedfa::bindings::register_detection(m);
  threedfa::bindings::register_image(m);
  threedfa::bindings::register_mesh(m);
  threedfa::bindings::register_model(m);
  threedfa::bindings::register_text(m);
}
