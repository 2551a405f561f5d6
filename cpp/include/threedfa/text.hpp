#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "threedfa/span.hpp"

namespace threedfa {

/// A table of numbers as text, row after row.
///
/// @param pattern text of one row, as for printf in the C locale, with one conversion for each
///        column: "%.Ng" (N = 1..9 digits, trailing zeros left out) or "%.Nf" (N = 1..9 decimals).
///        Nine digits tell every float from every other.
/// @param table rows x columns, row by row
/// @throws std::invalid_argument if the pattern is of another form, or the table has no whole
///         number of rows
std::string format_rows(std::string_view pattern, Span<const float> table);

/// The same for whole numbers, with "%d".
std::string format_rows(std::string_view pattern, Span<const std::int64_t> table);

}  // namespace threedfa
