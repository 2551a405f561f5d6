#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace threedfa {

/// A non-owning view of `size()` contiguous elements (what C++20 calls std::span).
/// The viewed memory must outlive the view.
template <class T>
class Span {
 public:
  constexpr Span() = default;
  constexpr Span(T* data, std::size_t size) : data_(data), size_(size) {}

  /// From std::vector, std::array or anything else with data() and size().
  template <class Container,
            class Element = std::remove_pointer_t<decltype(std::declval<Container&>().data())>,
            class = std::enable_if_t<std::is_convertible_v<Element (*)[], T (*)[]>>>
  constexpr Span(Container& container) : data_(container.data()), size_(container.size()) {}

  /// Span<T> converts to Span<const T>.
  template <class U, class = std::enable_if_t<std::is_convertible_v<U (*)[], T (*)[]>>>
  constexpr Span(const Span<U>& other) : data_(other.data()), size_(other.size()) {}

  constexpr T* data() const { return data_; }
  constexpr std::size_t size() const { return size_; }
  constexpr bool empty() const { return size_ == 0; }
  constexpr T& operator[](std::size_t i) const { return data_[i]; }
  constexpr T* begin() const { return data_; }
  constexpr T* end() const { return data_ + size_; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

namespace detail {

inline const char* text_of(const char* text) { return text; }
inline const std::string& text_of(const std::string& text) { return text; }
template <class Number, class = std::enable_if_t<std::is_arithmetic_v<Number>>>
std::string text_of(Number number) {
  return std::to_string(number);
}

}  // namespace detail

/// Throws std::invalid_argument "<name>: expected <expected>, got <actual>" unless `ok`. What was
/// found is given in parts, numbers among them, of which a text is made only where it is needed:
/// that takes longer than most of what is checked.
template <class Expected, class... Actual>
void require(bool ok, const char* name, const Expected& expected, const Actual&... actual) {
  if (ok) return;
  std::string message = std::string(name) + ": expected " + expected + ", got ";
  ((message += detail::text_of(actual)), ...);
  throw std::invalid_argument(message);
}

/// Throws std::invalid_argument unless `actual == expected`.
inline void require_size(const char* name, std::size_t expected, std::size_t actual) {
  if (actual == expected) return;
  require(false, name, std::to_string(expected) + " elements", actual);
}

}  // namespace threedfa
