#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "threedfa/span.hpp"

namespace threedfa {

/// A file that is not what it should be. The message names the file, what was expected and what was
/// found.
class FileError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Named arrays in a memory-mapped safetensors file (https://github.com/huggingface/safetensors).
///
/// Read strictly: a header over 1 MiB, JSON outside the format's grammar, duplicate names, offsets
/// that overlap, leave gaps, are not aligned to the element size or do not match dtype times shape
/// are refused. Only F32, I32 and I16 can be asked for. Tensors and spans are views, valid as long
/// as this object or a copy of it; the file must not be changed meanwhile.
class TensorFile {
 public:
  struct Tensor {
    std::string name;
    std::string dtype;  ///< as in the file: "F32", "I32", ...
    std::vector<std::size_t> shape;
    const std::byte* data = nullptr;
    std::size_t bytes = 0;
  };

  /// @param path on Windows in UTF-8
  /// @throws FileError if the file cannot be read or is not valid
  static TensorFile open(const std::string& path);

  /// Parses bytes that the caller keeps alive, aligned to 8 bytes as `new` and std::vector give
  /// them; `name` stands for the path in messages.
  /// @throws FileError if they are not valid; std::invalid_argument if they are not aligned
  static TensorFile parse(Span<const std::byte> bytes, const std::string& name);

  const std::string& path() const { return path_; }
  const std::vector<Tensor>& tensors() const { return tensors_; }

  /// The tensor of that name, or nullptr.
  const Tensor* find(const std::string& name) const;

  /// The elements of a tensor that must exist with this dtype and shape. An extent given as
  /// `kAny` matches everything.
  /// @throws FileError naming the tensor, the expected and the actual dtype or shape
  Span<const float> f32(const std::string& name, const std::vector<std::size_t>& shape) const;
  Span<const std::int32_t> i32(const std::string& name,
                               const std::vector<std::size_t>& shape) const;
  Span<const std::int16_t> i16(const std::string& name,
                               const std::vector<std::size_t>& shape) const;

  static constexpr std::size_t kAny = static_cast<std::size_t>(-1);

 private:
  std::string path_;
  std::vector<Tensor> tensors_;
  std::shared_ptr<const void> mapping_;  // keeps the mapped file alive; null after parse()
};

}  // namespace threedfa
