// libFuzzer target: any bytes parse or throw FileError.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "threedfa/tensor_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<std::byte> bytes(size);  // aligned, of exactly this size
  if (size > 0) std::memcpy(bytes.data(), data, size);
  unsigned sum = 0;
  try {
    const threedfa::TensorFile file = threedfa::TensorFile::parse(bytes, "fuzz");
    for (const auto& tensor : file.tensors()) {
      for (std::size_t i = 0; i < tensor.bytes; ++i) sum += static_cast<unsigned>(tensor.data[i]);
    }
  } catch (const threedfa::FileError&) {
    return 0;
  }
  return sum == ~0u ? -1 : 0;  // uses the sum, so that the reads stay
}
