#include "threedfa/text.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <vector>

namespace threedfa {
namespace {

constexpr std::size_t kLongest = 64;  // characters of a number; "%.9f" of the largest float has 50

constexpr std::array<double, 14> kPowersOfTen{1e0, 1e1, 1e2, 1e3,  1e4,  1e5,  1e6,
                                              1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13};

double power_of_ten(int exponent) { return kPowersOfTen[static_cast<std::size_t>(exponent)]; }

struct Conversion {
  char kind = 'd';  // of printf
  int digits = 0;   // all of them for 'g', those behind the point for 'f'
};

/// Text between two numbers, mostly a character or two: copied as a whole, which needs no call.
struct Literal {
  static constexpr std::size_t kShort = 8;
  std::array<char, kShort> head{};
  std::string_view text;

  explicit Literal(std::string_view text_) : text(text_) { text.copy(head.data(), kShort); }
  /// May write kShort characters where there are fewer.
  char* put(char* out) const {
    if (text.size() <= kShort) {
      std::memcpy(out, head.data(), kShort);
    } else {
      text.copy(out, text.size());
    }
    return out + text.size();
  }
};

struct Pattern {
  std::vector<Literal> literals;  // before each conversion, and after the last
  std::vector<Conversion> conversions;
};

Pattern parse(std::string_view text, std::string_view kinds, const char* expected) {
  Pattern pattern;
  std::size_t start = 0;
  for (std::size_t at = text.find('%'); at != text.npos; at = text.find('%', start)) {
    pattern.literals.emplace_back(text.substr(start, at - start));
    Conversion conversion;
    std::size_t end = at + 1;
    const bool has_point = end + 1 < text.size() && text[end] == '.';
    if (has_point) {
      conversion.digits = text[end + 1] - '0';
      end += 2;
    }
    conversion.kind = end < text.size() ? text[end] : '\0';
    const bool one_digit = conversion.digits >= 1 && conversion.digits <= 9;
    require(kinds.find(conversion.kind) != kinds.npos && has_point == (conversion.kind != 'd') &&
                has_point == one_digit,
            "pattern", expected, std::string(text));
    pattern.conversions.push_back(conversion);
    start = end + 1;
  }
  require(!pattern.conversions.empty(), "pattern", expected, std::string(text));
  pattern.literals.emplace_back(text.substr(start));
  return pattern;
}

/// The nearest whole number to the exact product of which `product`, 0 to 1e9, is the rounded
/// value; -1 where the two may be on different sides of a half.
std::int64_t nearest(double product) {
  const auto whole = static_cast<std::int64_t>(product);
  const double fraction = product - static_cast<double>(whole);
  if (std::abs(fraction - 0.5) < 1e-6) return -1;  // a product is off by 6e-8 at most
  return whole + (fraction > 0.5);
}

constexpr std::array<char, 200> two_digits() {
  std::array<char, 200> text{};
  for (std::size_t i = 0; i < 100; ++i) {
    text[2 * i] = static_cast<char>('0' + i / 10);
    text[2 * i + 1] = static_cast<char>('0' + i % 10);
  }
  return text;
}

constexpr std::array<char, 200> kTwoDigits = two_digits();  // "00" to "99"

/// `count` digits of `number`, which has no more, with zeros in front.
char* put_digits(char* out, std::uint32_t number, int count) {
  for (int i = count; i >= 2; i -= 2) {
    std::memcpy(out + i - 2, kTwoDigits.data() + 2 * (number % 100), 2);
    number /= 100;
  }
  if (count % 2 == 1) *out = static_cast<char>('0' + number);
  return out + count;
}

/// How many digits a number below 1e9 has; 1 for 0.
int digit_count(std::uint32_t number) {
  int count = 1;
  for (const std::uint32_t least :
       {10u, 100u, 1000u, 10000u, 100000u, 1000000u, 10000000u, 100000000u}) {
    count += number >= least;  // without branches, which could not be foretold
  }
  return count;
}

/// "%.Ng" for what it writes without an exponent; nullptr where rounding needs more care or there
/// is one.
char* put_general(char* out, double magnitude, int digits) {
  if (magnitude == 0) {
    *out = '0';
    return out + 1;
  }
  if (!(magnitude >= 1e-4 && magnitude < power_of_ten(digits))) return nullptr;
  int exponent = digit_count(static_cast<std::uint32_t>(magnitude)) - 1;  // of the first digit
  while (magnitude * power_of_ten(-std::min(exponent, 0)) < 1) --exponent;
  const std::int64_t number = nearest(magnitude * power_of_ten(digits - 1 - exponent));
  if (number < 0 || number >= static_cast<std::int64_t>(power_of_ten(digits))) return nullptr;

  for (int i = 0; i > exponent; --i) {
    *out++ = '0';
    if (i == 0) *out++ = '.';
  }
  const int before_point = std::max(exponent + 1, 0);
  char text[9];
  put_digits(text, static_cast<std::uint32_t>(number), digits);
  int end = digits;
  while (end > std::max(before_point, 1) && text[end - 1] == '0') --end;
  out = std::copy(text, text + before_point, out);
  if (before_point > 0 && end > before_point) *out++ = '.';
  return std::copy(text + before_point, text + end, out);
}

/// "%.Nf"; nullptr where rounding needs more care.
char* put_fixed(char* out, double magnitude, int decimals) {
  const double product = magnitude * power_of_ten(decimals);
  if (!(product < 1e9)) return nullptr;
  const std::int64_t number = nearest(product);
  if (number < 0) return nullptr;
  const auto one = static_cast<std::uint32_t>(power_of_ten(decimals));
  const std::uint32_t whole = static_cast<std::uint32_t>(number) / one;
  out = put_digits(out, whole, digit_count(whole));
  *out++ = '.';
  return put_digits(out, static_cast<std::uint32_t>(number) % one, decimals);
}

char* put(char* out, float value, Conversion conversion) {
  char* const number = std::signbit(value) ? out + 1 : out;
  *out = '-';
  const double magnitude = std::abs(static_cast<double>(value));
  if (std::isnan(value)) {  // of which some libraries' to_chars tell more than printf does
    std::memcpy(number, "nan", 3);
    return number + 3;
  }
  const bool general = conversion.kind == 'g';
  char* const end = (general ? put_general : put_fixed)(number, magnitude, conversion.digits);
  if (end != nullptr) return end;
  const auto format = general ? std::chars_format::general : std::chars_format::fixed;
  return std::to_chars(out, out + kLongest, value, format, conversion.digits).ptr;
}

char* put(char* out, std::int64_t value, Conversion) {
  if (value >= 0 && value < 1000000000) {
    const auto number = static_cast<std::uint32_t>(value);
    return put_digits(out, number, digit_count(number));
  }
  return std::to_chars(out, out + kLongest, value).ptr;
}

template <class T>
std::string rows(const Pattern& pattern, Span<const T> table) {
  const std::size_t columns = pattern.conversions.size();
  require(table.size() % columns == 0, "table", "rows of " + std::to_string(columns) + " numbers",
          table.size(), " numbers");
  std::size_t longest = columns * kLongest + Literal::kShort;
  for (const Literal& literal : pattern.literals) longest += literal.text.size();
  // As long as rows of the first one's length and a little more would be, so that it seldom grows.
  std::string text;
  std::size_t length = 0;
  for (std::size_t start = 0; start < table.size(); start += columns) {
    if (text.size() < length + longest) {
      const std::size_t done = start / columns + 1, all = table.size() / columns;
      text.resize((length / done + length / done / 8 + 8) * all + longest);
    }
    char* out = text.data() + length;
    for (std::size_t i = 0; i < columns; ++i) {
      out = pattern.literals[i].put(out);
      out = put(out, table[start + i], pattern.conversions[i]);
    }
    out = pattern.literals[columns].put(out);
    length = static_cast<std::size_t>(out - text.data());
  }
  text.resize(length);
  return text;
}

}  // namespace

std::string format_rows(std::string_view pattern, Span<const float> table) {
  return rows(parse(pattern, "gf", "text with a \"%.Ng\" or \"%.Nf\" (N = 1..9) for each column"),
              table);
}

std::string format_rows(std::string_view pattern, Span<const std::int64_t> table) {
  return rows(parse(pattern, "d", "text with a \"%d\" for each column"), table);
}

}  // namespace threedfa
