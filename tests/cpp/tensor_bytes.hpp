#pragma once

// Writes small safetensors files for the tests.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "threedfa/span.hpp"

namespace threedfa_test {

/// Bytes of a safetensors file; std::vector's memory is aligned as TensorFile::parse asks.
using Bytes = std::vector<std::byte>;

inline void append(Bytes& bytes, const void* data, std::size_t size) {
  const auto* const from = static_cast<const std::byte*>(data);
  bytes.insert(bytes.end(), from, from + size);
}

/// Header length, header and data, whatever they are.
inline Bytes file_bytes(const std::string& header, const Bytes& data) {
  Bytes bytes;
  const std::uint64_t size = header.size();
  append(bytes, &size, sizeof size);
  append(bytes, header.data(), header.size());
  append(bytes, data.data(), data.size());
  return bytes;
}

/// Collects tensors and writes a valid file.
class TensorWriter {
 public:
  template <class T>
  TensorWriter& add(const std::string& name, const std::vector<std::size_t>& shape,
                    const std::vector<T>& values) {
    const std::size_t begin = data_.size();
    append(data_, values.data(), values.size() * sizeof(T));
    header_ += (header_.empty() ? "{\"" : ",\"") + name + "\":{\"dtype\":\"" + dtype(T{}) +
               "\",\"shape\":[";
    for (std::size_t i = 0; i < shape.size(); ++i) {
      header_ += (i > 0 ? "," : "") + std::to_string(shape[i]);
    }
    header_ +=
        "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(data_.size()) + "]}";
    return *this;
  }

  Bytes bytes() const {
    std::string header = header_.empty() ? "{}" : header_ + "}";
    while (header.size() % 8 != 0) header += ' ';  // the data begins at a multiple of 8
    return file_bytes(header, data_);
  }

 private:
  static const char* dtype(float) { return "F32"; }
  static const char* dtype(std::int32_t) { return "I32"; }
  static const char* dtype(std::int16_t) { return "I16"; }
  static const char* dtype(std::uint8_t) { return "U8"; }

  std::string header_;
  Bytes data_;
};

}  // namespace threedfa_test
