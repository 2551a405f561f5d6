#pragma once

// The one place where Python arguments become checked views for the core.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <new>
#include <string>
#include <type_traits>
#include <vector>

#include "threedfa/image.hpp"
#include "threedfa/roi.hpp"
#include "threedfa/span.hpp"

namespace threedfa::bindings {

namespace py = pybind11;

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

constexpr py::ssize_t kAny = -1;  ///< an extent that may be anything

inline std::string describe(const std::vector<py::ssize_t>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i ? ", " : "") + (shape[i] == kAny ? std::string("any") : std::to_string(shape[i]));
  }
  return text + (shape.size() == 1 ? ",)" : ")");
}

inline std::vector<py::ssize_t> shape_of(const py::array& array) {
  return {array.shape(), array.shape() + array.ndim()};
}

inline std::string describe(const py::array& array) {
  return std::string(py::str(array.dtype())) + " " + describe(shape_of(array));
}

inline py::array as_array(py::handle object, const char* name) {
  py::array array = py::array::ensure(object);
  if (!array) {
    PyErr_Clear();
    throw py::type_error(std::string(name) + ": expected a NumPy array, got " +
                         std::string(py::str(py::type::of(object))));
  }
  return array;
}

inline void check_shape(const py::array& array, const char* name, const char* kind,
                        const std::vector<py::ssize_t>& shape) {
  bool ok = array.ndim() == static_cast<py::ssize_t>(shape.size());
  for (std::size_t i = 0; ok && i < shape.size(); ++i) {
    ok = shape[i] == kAny || shape[i] == array.shape(static_cast<py::ssize_t>(i));
  }
  if (!ok) {
    throw py::value_error(std::string(name) + ": expected " + kind + " of shape " +
                          describe(shape) + ", got " + describe(array));
  }
}

inline void check_kind(const py::array& array, const char* name, const char* kinds,
                       const char* expected) {
  if (std::string(kinds).find(array.dtype().kind()) == std::string::npos) {
    throw py::type_error(std::string(name) + ": expected " + expected + ", got " + describe(array));
  }
}

template <class T>
void check_finite(const Array<T>& array, const char* name) {
  const T* const data = array.data();
  const py::ssize_t count = array.size();
  // Without branches first, which compilers turn into vector instructions: x - x is NaN, which is
  // not 0, for what is not finite.
  int bad = 0;
  for (py::ssize_t i = 0; i < count; ++i) bad |= static_cast<int>(!(data[i] - data[i] == 0));
  for (py::ssize_t i = 0; bad != 0 && i < count; ++i) {
    if (!std::isfinite(data[i])) {
      throw py::value_error(std::string(name) + ": expected finite values that fit " +
                            std::string(py::str(py::dtype::of<T>())) + ", got " +
                            std::to_string(data[i]) + " at flat index " + std::to_string(i));
    }
  }
}

/// The same values as contiguous T, without a copy where they are that already. A value that T
/// cannot hold becomes infinite, of which NumPy must not warn: check_finite finds it.
template <class T>
Array<T> converted(const py::array& array) {
  const bool narrower = array.dtype().kind() == 'f' && array.itemsize() > py::ssize_t{sizeof(T)};
  if (py::isinstance<py::array_t<T>>(array) || !narrower) return Array<T>(array);
  const py::object quiet = py::module_::import("numpy").attr("errstate")(py::arg("all") = "ignore");
  quiet.attr("__enter__")();
  Array<T> result = Array<T>::ensure(array);
  quiet.attr("__exit__")(py::none(), py::none(), py::none());
  if (!result) throw std::bad_alloc();
  return result;
}

/// Real numbers of the given shape as contiguous T (float or double), for a kernel that finds those
/// which are not finite itself.
template <class T = float>
Array<T> numbers(py::handle object, const char* name, const std::vector<py::ssize_t>& shape) {
  const py::array array = as_array(object, name);
  check_kind(array, name, "fiu", "an array of real numbers");
  check_shape(array, name, "an array", shape);
  return converted<T>(array);
}

/// Real numbers of the given shape as contiguous, finite T (float or double).
template <class T = float>
Array<T> reals(py::handle object, const char* name, const std::vector<py::ssize_t>& shape) {
  Array<T> result = numbers<T>(object, name, shape);
  check_finite(result, name);
  return result;
}

/// Integers of the given shape as contiguous int32, each in lowest..highest.
inline Array<std::int32_t> indices(py::handle object, const char* name,
                                   std::vector<py::ssize_t> shape, std::int64_t lowest,
                                   std::int64_t highest) {
  const py::array array = as_array(object, name);
  check_kind(array, name, "iu", "an array of integers");
  check_shape(array, name, "an array", shape);
  if (!array.writeable() && py::isinstance<Array<std::int32_t>>(array)) {
    // Such as a model's triangles, which nobody changes after the check.
    const auto same = Array<std::int32_t>(array);
    const std::int32_t* const values = same.data();
    const py::ssize_t count = same.size();
    bool inside = true;
    for (py::ssize_t i = 0; i < count; ++i) {
      inside &= (values[i] >= lowest) & (values[i] <= highest);
    }
    if (inside) return same;
  }
  const auto wide = Array<std::int64_t>(array);
  Array<std::int32_t> result(shape_of(array));
  const std::int64_t* const values = wide.data();
  std::int32_t* const out = result.mutable_data();
  const py::ssize_t count = wide.size();
  for (py::ssize_t i = 0; i < count; ++i) {
    const std::int64_t value = values[i];
    if (value < lowest || value > highest) {
      throw py::value_error(std::string(name) + ": expected indices in " + std::to_string(lowest) +
                            ".." + std::to_string(highest) + ", got " + std::to_string(value) +
                            " at flat index " + std::to_string(i));
    }
    out[i] = static_cast<std::int32_t>(value);
  }
  return result;
}

/// Triangles (T, 3) over `vertex_count` vertices.
inline Array<std::int32_t> triangle_indices(py::handle object, py::ssize_t vertex_count) {
  return indices(object, "triangles", {kAny, 3}, 0, vertex_count - 1);
}

/// An image (H, W, channels) of 8-bit pixels; the array must outlive its view.
inline Array<std::uint8_t> pixels(py::handle object, const char* name = "image",
                                  py::ssize_t channels = 3) {
  const py::array array = as_array(object, name);
  if (!py::isinstance<py::array_t<std::uint8_t>>(array)) {
    throw py::type_error(std::string(name) + ": expected a uint8 array, got " + describe(array));
  }
  check_shape(array, name, "a uint8 array", {kAny, kAny, channels});
  if (array.size() == 0) {
    throw py::value_error(std::string(name) + ": expected at least one pixel, got shape " +
                          describe(shape_of(array)));
  }
  return Array<std::uint8_t>(array);
}

inline int to_int(py::ssize_t value, const char* name) {
  if (value < 0 || value > 0x7fffffff) {
    throw py::value_error(std::string(name) + ": expected at most 2147483647, got " +
                          std::to_string(value));
  }
  return static_cast<int>(value);
}

inline ImageView view(const Array<std::uint8_t>& image) {
  return {image.data(), to_int(image.shape(0), "height"), to_int(image.shape(1), "width"),
          to_int(image.shape(2), "channels"), image.shape(1) * image.shape(2)};
}

template <class T>
Span<const T> view(const Array<T>& array) {
  return {array.data(), static_cast<std::size_t>(array.size())};
}

template <class T>
Span<T> writable(Array<T>& array) {
  return {array.mutable_data(), static_cast<std::size_t>(array.size())};
}

template <std::size_t N>
std::array<float, N> fixed(py::handle object, const char* name) {
  const Array<float> array = reals(object, name, {static_cast<py::ssize_t>(N)});
  std::array<float, N> result;
  for (std::size_t i = 0; i < N; ++i) result[i] = array.data()[i];
  return result;
}

inline Roi roi(const double* values) { return {values[0], values[1], values[2], values[3]}; }

/// An array to write into: a new one, or the caller's where it is given.
template <class T>
Array<T> output(py::handle given, const char* name, const std::vector<py::ssize_t>& shape) {
  if (!given || given.is_none()) return Array<T>(shape);
  const std::string kind = "a writable, contiguous " + std::string(py::str(py::dtype::of<T>()));
  if (!py::isinstance<Array<T>>(given)) {
    throw py::type_error(std::string(name) + ": expected " + kind + " array, got " +
                         describe(as_array(given, name)));
  }
  auto array = py::reinterpret_borrow<Array<T>>(given);
  check_shape(array, name, (kind + " array").c_str(), shape);
  if (!array.writeable()) {
    throw py::value_error(std::string(name) + ": expected " + kind + " array, got a read-only one");
  }
  return array;
}

/// A side length of an array to be made, in pixels.
inline void check_extent(py::ssize_t value, const char* name) {
  if (value < 1 || value > 65535) {
    throw py::value_error(std::string(name) + ": expected 1..65535 pixels, got " +
                          std::to_string(value));
  }
}

}  // namespace threedfa::bindings
