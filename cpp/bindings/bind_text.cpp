#include <algorithm>

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
  const auto conversions = std::count(pattern.begin(), pattern.end(), '%');
  if (table.shape(1) != conversions) {
    throw py::value_error("table: expected a column for each of " + std::to_string(conversions) +
                          " conversions, got " + std::to_string(table.shape(1)));
  }
  if (table.dtype().kind() == 'u' && table.itemsize() == 8) {
    throw py::type_error("table: expected whole numbers that fit int64, got uint64");
  }
  return table.dtype().kind() == 'f' ? formatted(pattern, converted<float>(table))
                                     : formatted(pattern, converted<std::int64_t>(table));
}

}  // namespace

void register_text(py::module_& m) {
  m.def("format_rows", &py_format_rows, py::arg("pattern"), py::arg("table"));
}

}  // namespace threedfa::bindings
