#include "arrays.hpp"
#include "register.hpp"
#include "threedfa/text.hpp"

namespace threedfa::bindings {
namespace {

template <class T>
std::string formatted(const std::string& pattern, const Array<T>& table) {
  const auto numbers = view(table);
  py::gil_scoped_release release;
  return format_rows(pattern, numbers);
}

py::bytes py_format_rows(const std::string& pattern, py::handle table_in) {
  const py::array table = as_array(table_in, "table");
  check_kind(table, "table", "fiu", "an array of real numbers");
  check_shape(table, "table", "an array", {kAny, kAny});
  return table.dtype().kind() == 'f' ? formatted(pattern, converted<float>(table))
                                     : formatted(pattern, converted<std::int64_t>(table));
}

}  // namespace

void register_text(py::module_& m) {
  m.def("format_rows", &py_format_rows, py::arg("pattern"), py::arg("table"));
}

}  // namespace threedfa::bindings
