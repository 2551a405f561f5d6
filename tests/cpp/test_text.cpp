#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "threedfa/text.hpp"

using threedfa::format_rows;
using threedfa::Span;

namespace {

std::string one(const char* pattern, float value) {
  return format_rows(pattern, Span<const float>(&value, 1));
}

/// What the C library writes; tests run in the C locale.
std::string printed(const char* pattern, float value) {
  char text[128];
  std::snprintf(text, sizeof text, pattern, static_cast<double>(value));
  return text;
}

float from_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace

TEST_CASE("format_rows: literals and columns, row by row") {
  const std::vector<float> table{1, -2.5f, 0.1f, 100, 0, 1e-7f};
  CHECK(format_rows("v %.9g %.4g %.2f\n", table) == "v 1 -2.5 0.10\nv 100 0 0.00\n");
  const std::vector<std::int64_t> numbers{1, -20, std::numeric_limits<std::int64_t>::min(), 0};
  CHECK(format_rows("f %d/%d;", numbers) == "f 1/-20;f -9223372036854775808/0;");
  CHECK(format_rows("%.9g", Span<const float>()).empty());
}

TEST_CASE("format_rows: as the C library") {
  const std::vector<float> special{0.0f,
                                   -0.0f,
                                   1.0f,
                                   9.9999996e8f,
                                   1e9f,
                                   999999.5f,
                                   0.5f,
                                   1.5f,
                                   0.25f,
                                   1e-4f,
                                   9.9999997e-5f,
                                   123456.5f,
                                   1234567.5f,
                                   16777216.0f,
                                   std::numeric_limits<float>::min(),
                                   std::numeric_limits<float>::max(),
                                   std::numeric_limits<float>::denorm_min(),
                                   std::numeric_limits<float>::lowest()};
  std::mt19937 random(3);
  std::uniform_int_distribution<std::uint32_t> bits;
  std::uniform_real_distribution<float> pixel(-200, 4000), unit(-1, 1);
  std::vector<float> values = special;
  for (int i = 0; i < 20000; ++i) {
    const float any = from_bits(bits(random));
    if (std::isfinite(any)) values.push_back(any);
    values.push_back(pixel(random));
    values.push_back(unit(random));
    values.push_back(std::ldexp(std::round(pixel(random)), -static_cast<int>(i % 12)));  // ties
  }
  for (const char* const pattern : {"%.9g", "%.6g", "%.1g", "%.4f", "%.9f"}) {
    for (const float value : values) CHECK(one(pattern, value) == printed(pattern, value));
  }
}

TEST_CASE("format_rows: patterns of another form") {
  const std::vector<float> row{1, 2};
  for (const char* const pattern : {"", "text", "%", "%g", "%.g", "%.0g", "%.10g", "%.9", "%.9e",
                                    "%d", "%s", "%%", "%.9g %", "%n"}) {
    CHECK_THROWS_AS(format_rows(pattern, row), std::invalid_argument);
  }
  const std::vector<std::int64_t> numbers{1};
  for (const char* const pattern : {"%.9g", "%.3d", "%i", "%ld", "%.0d", "%.zd", "%.%d"}) {
    CHECK_THROWS_AS(format_rows(pattern, numbers), std::invalid_argument);
  }
  CHECK_THROWS_AS(format_rows("%.9g %.9g %.9g", row), std::invalid_argument);
}
