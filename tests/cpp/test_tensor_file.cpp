#include <doctest/doctest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <utility>

#include "tensor_bytes.hpp"
#include "threedfa/tensor_file.hpp"

using threedfa::FileError;
using threedfa::TensorFile;
using threedfa_test::Bytes;
using threedfa_test::file_bytes;
using threedfa_test::TensorWriter;

namespace {

// A file that is removed when the test ends.
class TemporaryFile {
 public:
  explicit TemporaryFile(const Bytes& bytes) {
    path_ = (std::filesystem::temp_directory_path() /
             ("threedfa_" + std::to_string(std::random_device{}()) + ".safetensors"))
                .string();
    std::ofstream out(path_, std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()),
              static_cast<std::streamsize>(bytes.size()));
  }
  ~TemporaryFile() { std::remove(path_.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Bytes two_tensors() {
  return TensorWriter()
      .add<float>("a", {2, 3}, {1, 2, 3, 4, 5, 6})
      .add<std::int32_t>("b", {2}, {7, -8})
      .bytes();
}

// The message with which a file of this header and 24 zero bytes of data is refused, or "".
// Pads the header, so that only a wrong offset is misaligned.
std::string refusal(std::string header, std::size_t data_size = 24) {
  while (header.size() % 8 != 0) header += ' ';
  const Bytes bytes = file_bytes(header, Bytes(data_size));
  try {
    TensorFile::parse(bytes, "file");
  } catch (const FileError& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// A header with one tensor of 24 bytes and the given name in its JSON form.
std::string named(const std::string& name) {
  return "{\"" + name + "\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[0,24]}}";
}

}  // namespace

TEST_CASE("tensor file: reads what was written, from memory and from disk") {
  const Bytes bytes = two_tensors();
  const TemporaryFile on_disk(bytes);
  for (const TensorFile& file :
       {TensorFile::parse(bytes, "memory"), TensorFile::open(on_disk.path())}) {
    REQUIRE(file.tensors().size() == 2);
    const auto a = file.f32("a", {2, 3});
    REQUIRE(a.size() == 6);
    for (std::size_t i = 0; i < 6; ++i) CHECK(a[i] == static_cast<float>(i + 1));
    const auto b = file.i32("b", {TensorFile::kAny});
    REQUIRE(b.size() == 2);
    CHECK(b[1] == -8);
    CHECK(file.find("a")->shape == std::vector<std::size_t>{2, 3});
    CHECK(file.find("c") == nullptr);
  }
  CHECK(TensorFile::open(on_disk.path()).path() == on_disk.path());
}

TEST_CASE("tensor file: a copy keeps the mapped file alive") {
  const TemporaryFile on_disk(two_tensors());
  TensorFile copy;
  {
    const TensorFile file = TensorFile::open(on_disk.path());
    copy = file;
  }
  const TensorFile moved = std::move(copy);
  CHECK(moved.f32("a", {2, 3})[5] == 6.0f);
}

TEST_CASE("tensor file: accepts the whole format") {
  CHECK(refusal(named("a")) == "");
  CHECK(refusal("{}", 0) == "");
  CHECK(
      refusal(
          "{ \"a\" : {\n\"shape\" : [ 2 , 3 ],\t\"data_offsets\":[0, 24],\r\"dtype\":\"F32\"}}") ==
      "");
  CHECK(refusal("{\"__metadata__\":{\"format\":\"x\",\"unit\":\"\"}," + named("a").substr(1)) ==
        "");
  CHECK(refusal("{\"__metadata__\":{}}", 0) == "");
  // A scalar, an empty tensor, other types, tensors not listed in order of their offsets.
  CHECK(refusal("{\"b\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[8,24]},"
                "\"a\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
                "\"e\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[8,8]}}") == "");
}

TEST_CASE("tensor file: names may hold any Unicode text") {
  const std::pair<std::string, std::string> names[] = {
      {"", ""},
      {"\\\"\\\\\\/\\b\\f\\n\\r\\t", "\"\\/\b\f\n\r\t"},
      {"\\u0041\\u00e9\\u20AC\\ud83d\\ude00", "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
      {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
      {"\\u0000", std::string(1, '\0')}};
  for (const auto& [json, name] : names) {
    std::string header = named(json);
    while (header.size() % 8 != 0) header += ' ';
    const Bytes bytes = file_bytes(header, Bytes(24));
    CHECK(TensorFile::parse(bytes, "file").tensors().at(0).name == name);
  }
}

TEST_CASE("tensor file: refuses text that is not UTF-8 or not JSON") {
  for (const char* name : {"\x80",
                           "\xc0\xaf",
                           "\xc3",
                           "\xe0\x80\x80",
                           "\xed\xa0\x80",
                           "\xf0\x80\x80\x80",
                           "\xf4\x90\x80\x80",
                           "\xf5\x80\x80\x80",
                           "\xff",
                           "\xe2\x82",
                           "\\x",
                           "\\u12",
                           "\\u12g4",
                           "\\ud800",
                           "\\ud800x",
                           "\\ud800\\n",
                           "\\ud800\\u0041",
                           "\\udc00",
                           "\n",
                           "\x01"}) {
    CAPTURE(name);
    CHECK(contains(refusal(named(name)), "header"));
  }
  const std::string tensor = named("a");
  for (std::size_t size = 0; size < tensor.size(); ++size) {
    CAPTURE(size);
    CHECK(refusal(tensor.substr(0, size)) != "");
  }
  for (const std::string& header :
       {" " + tensor, "[" + tensor + "]", tensor + "x", tensor + tensor, std::string("null"),
        std::string("{\"a\":null}"), std::string("{\"a\":[]}"), std::string("{\"a\":1}"),
        std::string("{,}"), "{" + tensor.substr(1, tensor.size() - 2) + ",}",
        std::string("{'a':1}")}) {
    CAPTURE(header);
    CHECK(contains(refusal(header), "expected"));
  }
}

TEST_CASE("tensor file: refuses nesting of any depth without recursion") {
  for (const char* open : {"[", "{\"a\":", "{\"__metadata__\":"}) {
    std::string header = "{\"a\":";
    while (header.size() < 900000) header += open;
    CHECK(contains(refusal(header), "expected"));
  }
  std::string shape = "{\"a\":{\"dtype\":\"F32\",\"shape\":[[6]],\"data_offsets\":[0,24]}}";
  CHECK(contains(refusal(shape), "whole number"));
}

TEST_CASE("tensor file: refuses numbers that are not sizes") {
  for (const char* number :
       {"-1", "+6", "6.0", "6e0", "06", "00", "\"6\"", "true", "", "NaN", "18446744073709551615",
        "18446744073709551616", "99999999999999999999999999999999999999999"}) {
    CAPTURE(number);
    const std::string n = number;
    CHECK(refusal("{\"a\":{\"dtype\":\"F32\",\"shape\":[" + n + "],\"data_offsets\":[0,24]}}") !=
          "");
    CHECK(refusal("{\"a\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[" + n + ",24]}}") !=
          "");
    CHECK(refusal("{\"a\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[0," + n + "]}}") !=
          "");
  }
}

TEST_CASE("tensor file: refuses shapes whose product overflows") {
  // 2^32 * 2^32 * 6 and 2^62 * 4 + 24 / 4 wrap around to small numbers.
  for (const char* shape : {"4294967296,4294967296,6", "4611686018427387904,4,6",
                            "9223372036854775807,2", "18446744073709551614,0"}) {
    CAPTURE(shape);
    const std::string message = refusal("{\"a\":{\"dtype\":\"F32\",\"shape\":[" +
                                        std::string(shape) + "],\"data_offsets\":[0,24]}}");
    CHECK(contains(message, "fits in memory"));
  }
}

TEST_CASE("tensor file: refuses names and members that come twice") {
  const std::string a = named("a"), half = "\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":";
  CHECK(contains(refusal("{\"a\":{" + half + "[0,12]},\"a\":{" + half + "[12,24]}}"), "'a' twice"));
  CHECK(contains(refusal("{\"a\":{" + half + "[0,12]},\"\\u0061\":{" + half + "[12,24]}}"),
                 "'a' twice"));
  CHECK(contains(refusal("{\"__metadata__\":{},\"__metadata__\":{}," + a.substr(1)), "twice"));
  CHECK(contains(refusal("{\"__metadata__\":{\"x\":\"\",\"x\":\"\"}," + a.substr(1)), "twice"));
  for (const char* member : {"\"dtype\":\"F32\"", "\"shape\":[6]", "\"data_offsets\":[0,24]"}) {
    CHECK(contains(refusal("{\"a\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[0,24]," +
                           std::string(member) + "}}"),
                   "two"));
  }
}

TEST_CASE("tensor file: refuses missing and unknown members") {
  const std::string dtype = "\"dtype\":\"F32\"", shape = "\"shape\":[6]",
                    offsets = "\"data_offsets\":[0,24]";
  CHECK(contains(refusal("{\"a\":{" + shape + "," + offsets + "}}"), "no dtype"));
  CHECK(contains(refusal("{\"a\":{" + dtype + "," + offsets + "}}"), "no shape"));
  CHECK(contains(refusal("{\"a\":{" + dtype + "," + shape + "}}"), "no data_offsets"));
  CHECK(contains(refusal("{\"a\":{}}"), "no dtype"));
  CHECK(contains(refusal("{\"a\":{" + dtype + "," + shape + "," + offsets + ",\"x\":1}}"), "'x'"));
  CHECK(contains(refusal("{\"a\":{" + dtype + "," + shape + ",\"data_offsets\":[0]}}"), "2 data"));
  CHECK(contains(refusal("{\"a\":{" + dtype + "," + shape + ",\"data_offsets\":[0,12,24]}}"),
                 "2 data"));
  CHECK(contains(refusal("{\"__metadata__\":{\"x\":1}}"), "expected"));
  CHECK(contains(refusal("{\"__metadata__\":[]}"), "expected"));
  for (const char* unknown : {"", "f32", "F33", "F32 "}) {
    CHECK(contains(refusal("{\"a\":{\"dtype\":\"" + std::string(unknown) + "\"," + shape + "," +
                           offsets + "}}"),
                   "known dtype"));
  }
}

TEST_CASE("tensor file: refuses data that is not covered exactly once") {
  const auto pair = [](const std::string& first, const std::string& second) {
    return "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":" + first +
           "},\"b\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":" + second + "}}";
  };
  CHECK(refusal(pair("[0,12]", "[12,24]")) == "");
  CHECK(contains(refusal(pair("[0,12]", "[8,20]"), 20), "begin where the one before ends, at 12"));
  CHECK(contains(refusal(pair("[0,12]", "[0,12]"), 12), "begin where the one before ends"));
  CHECK(contains(refusal(pair("[0,12]", "[16,28]"), 28), "begin where the one before ends"));
  CHECK(contains(refusal(pair("[4,16]", "[16,28]"), 28), "begin where the one before ends, at 0"));
  CHECK(contains(refusal(pair("[0,12]", "[12,24]"), 28), "expected 24 bytes of data"));
  CHECK(contains(refusal(pair("[0,12]", "[12,24]"), 20), "within the file's 20 bytes"));
  CHECK(contains(refusal(pair("[12,0]", "[12,24]")), "within"));
  CHECK(contains(refusal(pair("[0,8]", "[8,24]")), "expected 12 bytes"));
  CHECK(contains(refusal("{}", 1), "expected 0 bytes of data"));
  // A hole that an empty tensor pretends to cover.
  CHECK(contains(refusal("{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[4,4]}}", 4),
                 "at 0"));
}

TEST_CASE("tensor file: refuses misaligned tensors and memory") {
  CHECK(contains(refusal("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
                         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]}}",
                         6),
                 "multiple of 4"));
  const Bytes unpadded = file_bytes(named("a"), Bytes(24));
  CHECK_THROWS_WITH_AS(TensorFile::parse(unpadded, "file"), doctest::Contains("multiple of 4"),
                       FileError);
  const Bytes bytes = two_tensors();
  Bytes shifted(1);
  shifted.insert(shifted.end(), bytes.begin(), bytes.end());
  CHECK_THROWS_AS(TensorFile::parse({shifted.data() + 1, bytes.size()}, "file"),
                  std::invalid_argument);
}

TEST_CASE("tensor file: refuses every truncation and every longer file") {
  const Bytes bytes = two_tensors();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    CAPTURE(size);
    CHECK_THROWS_AS(TensorFile::parse({bytes.data(), size}, "file"), FileError);
  }
  Bytes longer = bytes;
  longer.push_back(std::byte{});
  CHECK_THROWS_AS(TensorFile::parse(longer, "file"), FileError);
}

TEST_CASE("tensor file: refuses absurd header sizes") {
  Bytes bytes = two_tensors();
  for (const std::uint64_t size :
       {std::uint64_t{bytes.size() - 7}, std::uint64_t{1} << 20, (std::uint64_t{1} << 20) + 1,
        ~std::uint64_t{0}, ~std::uint64_t{0} - 7, std::uint64_t{1} << 63}) {
    CAPTURE(size);
    std::memcpy(bytes.data(), &size, sizeof size);
    CHECK_THROWS_WITH_AS(TensorFile::parse(bytes, "file"), doctest::Contains("header"), FileError);
  }
}

TEST_CASE("tensor file: what cannot be opened is named") {
  const std::string folder = std::filesystem::temp_directory_path().string();
  CHECK_THROWS_WITH_AS(TensorFile::open(folder + "/threedfa/no/such/file"),
                       doctest::Contains("threedfa/no/such/file: expected a readable file"),
                       FileError);
  CHECK_THROWS_WITH_AS(TensorFile::open(folder), doctest::Contains(folder.c_str()), FileError);
  CHECK_THROWS_AS(TensorFile::open(""), FileError);
  CHECK_THROWS_AS(TensorFile::open(std::string("a\0b", 3)), FileError);
  const TemporaryFile empty(Bytes{});
  CHECK_THROWS_WITH_AS(TensorFile::open(empty.path()), doctest::Contains("got 0 bytes"), FileError);
}

TEST_CASE("tensor file: a wrong dtype, shape or name says what was expected") {
  const Bytes bytes = two_tensors();
  const TensorFile file = TensorFile::parse(bytes, "model.safetensors");
  CHECK_THROWS_WITH_AS(file.f32("c", {2}),
                       "model.safetensors: expected tensor 'c' of F32 (2), got no tensor of that "
                       "name",
                       FileError);
  CHECK_THROWS_WITH_AS(file.f32("b", {2}),
                       "model.safetensors: expected tensor 'b' of F32 (2), got I32 (2)", FileError);
  CHECK_THROWS_WITH_AS(file.f32("a", {TensorFile::kAny, 2}),
                       "model.safetensors: expected tensor 'a' of F32 (any, 2), got F32 (2, 3)",
                       FileError);
  CHECK_THROWS_AS(file.f32("a", {6}), FileError);
  CHECK_THROWS_AS(file.i32("a", {2, 3}), FileError);
}

TEST_CASE("tensor file: messages show no control characters and no endless names") {
  const std::string message =
      refusal("{\"\\u001b[2J" + std::string(5000, 'x') +
              "\":{\"dtype\":\"F32\",\"shape\":[5],\"data_offsets\":[0,24]}}");
  CHECK(contains(message, "?[2Jxx"));
  CHECK(message.size() < 300);
}

TEST_CASE("tensor file: a damaged file parses or is refused, nothing else") {
  const Bytes good = two_tensors();
  const std::string tokens = "{}[]\",:\\u0123456789eE+-. ad__metadata__\x80\xff\xed";
  std::mt19937 random(20240229);
  const auto below = [&](std::size_t n) {
    return std::uniform_int_distribution<std::size_t>(0, n - 1)(random);
  };
  int parsed = 0, refused = 0;
  for (int round = 0; round < 8000; ++round) {
    Bytes bytes = good;
    for (std::size_t edits = 1 + below(4); edits > 0; --edits) {
      const std::size_t at = below(bytes.size());
      const auto position = bytes.begin() + static_cast<std::ptrdiff_t>(at);
      switch (below(5)) {
        case 0:
          bytes[at] = static_cast<std::byte>(below(256));
          break;
        case 1:
          bytes[at] = static_cast<std::byte>(tokens[below(tokens.size())]);
          break;
        case 2:
          bytes.insert(position, static_cast<std::byte>(tokens[below(tokens.size())]));
          break;
        case 3:
          if (bytes.size() > 1) bytes.erase(position);
          break;
        default:
          std::swap(bytes[at], bytes[below(bytes.size())]);
      }
    }
    try {
      const TensorFile file = TensorFile::parse(bytes, "file");
      // Whatever was accepted lies within the file and can be read.
      std::size_t total = 0;
      for (const TensorFile::Tensor& tensor : file.tensors()) {
        REQUIRE(tensor.data >= bytes.data());
        REQUIRE(tensor.data + tensor.bytes <= bytes.data() + bytes.size());
        total += tensor.bytes;
      }
      CHECK(total < bytes.size());
      ++parsed;
    } catch (const FileError&) {
      ++refused;
    }
  }
  CHECK(parsed > 100);  // values and names may change
  CHECK(refused > 1000);
}
