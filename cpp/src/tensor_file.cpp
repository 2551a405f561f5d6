#include "threedfa/tensor_file.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#ifdef _WIN32
#define NOMINMAX
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <filesystem>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors data is little-endian and used in place"
#endif

namespace threedfa {

namespace {

constexpr std::size_t kMaxHeader = std::size_t{1} << 20;
constexpr std::size_t kLengthBytes = 8;  // the header's length stands before it
constexpr std::size_t kMaxAlignment = 8;

[[noreturn]] void fail(const std::string& path, const std::string& expected,
                       const std::string& actual) {
  throw FileError(path + ": expected " + expected + ", got " + actual);
}

// Text from a file, safe to print: short, one line, ASCII.
std::string in_quotes(const std::string& text) {
  constexpr std::size_t kMaxShown = 60;
  std::string shown = "'";
  for (const char c : text.substr(0, kMaxShown)) {
    shown += (c >= 0x20 && c < 0x7f) ? c : '?';
  }
  return shown + (text.size() > kMaxShown ? "...'" : "'");
}

std::string shape_text(const std::vector<std::size_t>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += shape[i] == TensorFile::kAny ? "any" : std::to_string(shape[i]);
  }
  return text + ")";
}

// Bytes per element of a safetensors dtype, 0 for an unknown one.
std::size_t element_size(const std::string& dtype) {
  struct Entry {
    const char* name;
    std::size_t size;
  };
  static constexpr Entry kEntries[] = {{"F32", 4}, {"I32", 4}, {"F64", 8},     {"I64", 8},
                                       {"U64", 8}, {"U32", 4}, {"F16", 2},     {"BF16", 2},
                                       {"I16", 2}, {"U16", 2}, {"F8_E4M3", 1}, {"F8_E5M2", 1},
                                       {"I8", 1},  {"U8", 1},  {"BOOL", 1}};
  for (const Entry& entry : kEntries) {
    if (dtype == entry.name) return entry.size;
  }
  return 0;
}

// One entry of the header, before its offsets are checked against the file.
struct Entry {
  std::string name;
  std::string dtype;
  std::vector<std::size_t> shape;
  std::size_t begin = 0, end = 0;
};

// Reads the header: the subset of JSON (RFC 8259) that the format allows. Nesting is fixed by the
// grammar, so nothing recurses.
class HeaderParser {
 public:
  HeaderParser(const char* text, std::size_t size, const std::string& path)
      : text_(text), size_(size), path_(path) {}

  std::vector<Entry> parse() {
    // The format asks for the brace at once and allows padding only after the end.
    if (size_ == 0 || text_[0] != '{') fail_here("'{'");
    std::vector<Entry> entries;
    std::vector<std::string> names;
    parse_object([&](const std::string& name) {
      names.push_back(name);
      if (name == "__metadata__") {
        parse_metadata();
      } else {
        entries.push_back(parse_entry(name));
      }
    });
    skip_space();
    if (at_ != size_) fail_here("the end of the header");
    require_unique(std::move(names), "tensor names");
    return entries;
  }

 private:
  [[noreturn]] void fail_here(const std::string& expected) const {
    fail(path_, expected + " at byte " + std::to_string(at_) + " of the header",
         at_ < size_ ? in_quotes(std::string(1, text_[at_])) : "its end");
  }

  void skip_space() {
    while (at_ < size_ &&
           (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) {
      ++at_;
    }
  }

  // Skips white space and takes `c` if it comes next.
  bool take(char c) {
    skip_space();
    if (at_ >= size_ || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  void expect(char c) {
    if (!take(c)) fail_here(in_quotes(std::string(1, c)));
  }

  // Calls `member(name)` at the value of each member.
  template <class Member>
  void parse_object(Member member) {
    expect('{');
    if (take('}')) return;
    do {
      const std::string name = parse_string();
      expect(':');
      member(name);
    } while (take(','));
    expect('}');
  }

  void parse_metadata() {
    std::vector<std::string> keys;
    parse_object([&](const std::string& key) {
      keys.push_back(key);
      parse_string();
    });
    require_unique(std::move(keys), "keys of __metadata__");
  }

  Entry parse_entry(const std::string& name) {
    Entry entry;
    entry.name = name;
    bool has_dtype = false, has_shape = false, has_offsets = false;
    const auto once = [&](bool& seen, const std::string& key) {
      if (seen) fail(path_, "one '" + key + "' in tensor " + in_quotes(name), "two");
      seen = true;
    };
    parse_object([&](const std::string& key) {
      if (key == "dtype") {
        once(has_dtype, key);
        entry.dtype = parse_string();
      } else if (key == "shape") {
        once(has_shape, key);
        entry.shape = parse_sizes();
      } else if (key == "data_offsets") {
        once(has_offsets, key);
        const std::vector<std::size_t> offsets = parse_sizes();
        if (offsets.size() != 2) {
          fail(path_, "2 data_offsets in tensor " + in_quotes(name),
               std::to_string(offsets.size()));
        }
        entry.begin = offsets[0];
        entry.end = offsets[1];
      } else {
        fail(path_, "only dtype, shape and data_offsets in tensor " + in_quotes(name),
             in_quotes(key));
      }
    });
    if (!has_dtype || !has_shape || !has_offsets) {
      fail(path_, "dtype, shape and data_offsets in tensor " + in_quotes(name),
           std::string("no ") + (!has_dtype   ? "dtype"
                                 : !has_shape ? "shape"
                                              : "data_offsets"));
    }
    return entry;
  }

  std::vector<std::size_t> parse_sizes() {
    std::vector<std::size_t> sizes;
    expect('[');
    if (take(']')) return sizes;
    do {
      sizes.push_back(parse_size());
    } while (take(','));
    expect(']');
    return sizes;
  }

  // A whole number, 0 or more, without leading zeros. A sign, fraction or exponent is refused by
  // whoever reads on.
  std::size_t parse_size() {
    // The largest value is left out: it stands for kAny.
    constexpr std::size_t kMax = std::numeric_limits<std::size_t>::max() - 1;
    skip_space();
    const std::size_t start = at_;
    std::size_t value = 0;
    for (; at_ < size_ && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      const auto digit = static_cast<std::size_t>(text_[at_] - '0');
      if (value > (kMax - digit) / 10 || (at_ > start && value == 0)) {
        at_ = start;
        fail_here("a whole number up to " + std::to_string(kMax) + " without leading zeros");
      }
      value = value * 10 + digit;
    }
    if (at_ == start) fail_here("a whole number, 0 or more");
    return value;
  }

  std::string parse_string() {
    expect('"');
    std::string value;
    while (at_ < size_ && text_[at_] != '"') {
      const auto byte = static_cast<unsigned char>(text_[at_]);
      if (byte < 0x20) fail_here("no control character in a string");
      if (byte == '\\') {
        parse_escape(value);
      } else if (byte < 0x80) {
        value += text_[at_++];
      } else {
        parse_utf8(value);
      }
    }
    expect('"');
    return value;
  }

  void parse_escape(std::string& value) {
    ++at_;
    static constexpr char kFrom[] = {'"', '\\', '/', 'b', 'f', 'n', 'r', 't'};
    static constexpr char kTo[] = {'"', '\\', '/', '\b', '\f', '\n', '\r', '\t'};
    const char* const found =
        at_ < size_ ? std::find(std::begin(kFrom), std::end(kFrom), text_[at_]) : std::end(kFrom);
    if (found != std::end(kFrom)) {
      value += kTo[found - kFrom];
      ++at_;
      return;
    }
    std::uint32_t code = parse_code_unit();
    if (code >= 0xd800 && code < 0xdc00) {
      if (at_ >= size_ || text_[at_] != '\\') fail_here("the second half of a surrogate pair");
      ++at_;
      const std::uint32_t low = parse_code_unit();
      if (low < 0xdc00 || low > 0xdfff) fail_here("the second half of a surrogate pair before");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xdc00 && code <= 0xdfff) {
      fail_here("the first half of a surrogate pair before its second");
    }
    append_utf8(value, code);
  }

  // uXXXX, the backslash already taken.
  std::uint32_t parse_code_unit() {
    if (at_ >= size_ || text_[at_] != 'u') fail_here("a JSON escape");
    ++at_;
    std::uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = at_ < size_ ? text_[at_] : '\0';
      if (c >= '0' && c <= '9') {
        code = code * 16 + static_cast<std::uint32_t>(c - '0');
      } else if (c >= 'a' && c <= 'f') {
        code = code * 16 + static_cast<std::uint32_t>(c - 'a' + 10);
      } else if (c >= 'A' && c <= 'F') {
        code = code * 16 + static_cast<std::uint32_t>(c - 'A' + 10);
      } else {
        fail_here("a hexadecimal digit");
      }
    }
    return code;
  }

  static void append_utf8(std::string& value, std::uint32_t code) {
    const auto put = [&](std::uint32_t byte) { value += static_cast<char>(byte); };
    if (code < 0x80) {
      put(code);
    } else if (code < 0x800) {
      put(0xc0 | (code >> 6));
      put(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
      put(0xe0 | (code >> 12));
      put(0x80 | ((code >> 6) & 0x3f));
      put(0x80 | (code & 0x3f));
    } else {
      put(0xf0 | (code >> 18));
      put(0x80 | ((code >> 12) & 0x3f));
      put(0x80 | ((code >> 6) & 0x3f));
      put(0x80 | (code & 0x3f));
    }
  }

  // One character of two to four bytes: no overlong form, no surrogate, nothing above U+10FFFF.
  void parse_utf8(std::string& value) {
    const auto lead = static_cast<unsigned char>(text_[at_]);
    const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || size_ - at_ < length) fail_here("UTF-8");
    std::uint32_t code = lead & (0x7fu >> length);
    for (std::size_t i = 1; i < length; ++i) {
      const auto byte = static_cast<unsigned char>(text_[at_ + i]);
      if ((byte & 0xc0) != 0x80) fail_here("UTF-8");
      code = (code << 6) | (byte & 0x3fu);
    }
    const bool overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
    if (overlong || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) fail_here("UTF-8");
    value.append(text_ + at_, length);
    at_ += length;
  }

  void require_unique(std::vector<std::string> names, const std::string& what) const {
    std::sort(names.begin(), names.end());
    const auto twin = std::adjacent_find(names.begin(), names.end());
    if (twin != names.end()) fail(path_, what + " that differ", in_quotes(*twin) + " twice");
  }

  const char* text_;
  std::size_t size_;
  const std::string& path_;
  std::size_t at_ = 0;
};

// dtype times shape must be the bytes that the offsets span.
void check_extent(const Entry& entry, std::size_t data_start, std::size_t data_size,
                  const std::string& path) {
  const std::string tensor = "tensor " + in_quotes(entry.name);
  const std::size_t element = element_size(entry.dtype);
  if (element == 0) fail(path, "a known dtype for " + tensor, in_quotes(entry.dtype));
  if (entry.begin > entry.end || entry.end > data_size) {
    fail(path, tensor + " within the file's " + std::to_string(data_size) + " bytes of data",
         "data_offsets " + shape_text({entry.begin, entry.end}));
  }
  std::size_t bytes = element;
  for (const std::size_t extent : entry.shape) {
    if (extent != 0 && bytes > std::numeric_limits<std::size_t>::max() / extent) {
      fail(path, "a shape that fits in memory for " + tensor, shape_text(entry.shape));
    }
    bytes *= extent;
  }
  if (bytes != entry.end - entry.begin) {
    fail(path,
         std::to_string(bytes) + " bytes for " + tensor + " of " + entry.dtype + " " +
             shape_text(entry.shape),
         std::to_string(entry.end - entry.begin));
  }
  if ((data_start + entry.begin) % element != 0) {
    fail(path, tensor + " at a multiple of " + std::to_string(element) + " bytes",
         "byte " + std::to_string(data_start + entry.begin) + " of the file");
  }
}

// The tensors, in order of their offsets, must cover the data exactly once.
void check_coverage(std::vector<Entry>& entries, std::size_t data_size, const std::string& path) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::make_pair(a.begin, a.end) < std::make_pair(b.begin, b.end);
  });
  std::size_t covered = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != covered) {
      fail(path,
           "tensor " + in_quotes(entry.name) + " to begin where the one before ends, at " +
               std::to_string(covered),
           std::to_string(entry.begin));
    }
    covered = entry.end;
  }
  if (covered != data_size) {
    fail(path, std::to_string(covered) + " bytes of data, as the tensors need",
         std::to_string(data_size));
  }
}

// A whole file, mapped read-only. Everything that depends on the system is here.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path) {
    if (path.find('\0') != std::string::npos)
      fail(in_quotes(path), "a path", "one with a zero byte");
#ifdef _WIN32
    const HANDLE file = CreateFileW(std::filesystem::u8path(path).c_str(), GENERIC_READ,
                                    FILE_SHARE_READ, nullptr, OPEN_EXISTING, 0, nullptr);
    if (file == INVALID_HANDLE_VALUE) {
      fail(path, "a readable file", "error " + std::to_string(GetLastError()));
    }
    LARGE_INTEGER size{};
    const bool sized = GetFileSizeEx(file, &size) != 0;
    // An empty file cannot be mapped; it stays a view of nothing.
    HANDLE mapping = nullptr;
    if (sized && size.QuadPart > 0) {
      mapping = CreateFileMappingW(file, nullptr, PAGE_READONLY, 0, 0, nullptr);
      if (mapping != nullptr) data_ = MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0);
    }
    const DWORD error = GetLastError();
    if (mapping != nullptr) CloseHandle(mapping);
    CloseHandle(file);
    if (!sized || (size.QuadPart > 0 && data_ == nullptr)) {
      fail(path, "a file that can be mapped", "error " + std::to_string(error));
    }
    size_ = static_cast<std::size_t>(size.QuadPart);
#else
    // O_NONBLOCK: opening a pipe must not wait for its other end.
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) fail(path, "a readable file", std::strerror(errno));
    struct stat info{};
    const bool regular = ::fstat(file, &info) == 0 && S_ISREG(info.st_mode);
    void* data = nullptr;
    // An empty file cannot be mapped; it stays a view of nothing.
    if (regular && info.st_size > 0) {
      data =
          ::mmap(nullptr, static_cast<std::size_t>(info.st_size), PROT_READ, MAP_PRIVATE, file, 0);
    }
    const int error = errno;
    ::close(file);
    if (!regular) {
      fail(path, "a regular file", S_ISDIR(info.st_mode) ? "a directory" : "something else");
    }
    if (data == MAP_FAILED) fail(path, "a file that can be mapped", std::strerror(error));
    data_ = data;
    size_ = static_cast<std::size_t>(info.st_size);
#endif
  }

  ~MappedFile() {
    if (data_ == nullptr) return;
#ifdef _WIN32
    UnmapViewOfFile(data_);
#else
    ::munmap(data_, size_);
#endif
  }

  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  Span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

// The elements of a tensor, checked against what the caller needs.
template <class T>
Span<const T> typed(const TensorFile& file, const std::string& name, const std::string& dtype,
                    const std::vector<std::size_t>& shape) {
  const TensorFile::Tensor* const tensor = file.find(name);
  const std::string expected = "tensor '" + name + "' of " + dtype + " " + shape_text(shape);
  if (tensor == nullptr) fail(file.path(), expected, "no tensor of that name");
  bool same = tensor->dtype == dtype && tensor->shape.size() == shape.size();
  for (std::size_t i = 0; same && i < shape.size(); ++i) {
    same = shape[i] == TensorFile::kAny || shape[i] == tensor->shape[i];
  }
  if (!same) fail(file.path(), expected, tensor->dtype + " " + shape_text(tensor->shape));
  return {reinterpret_cast<const T*>(tensor->data), tensor->bytes / sizeof(T)};
}

}  // namespace

TensorFile TensorFile::open(const std::string& path) {
  const auto mapping = std::make_shared<const MappedFile>(path);
  TensorFile file = parse(mapping->bytes(), path);
  file.mapping_ = mapping;
  return file;
}

TensorFile TensorFile::parse(Span<const std::byte> bytes, const std::string& name) {
  require(reinterpret_cast<std::uintptr_t>(bytes.data()) % kMaxAlignment == 0, "bytes",
          "memory aligned to 8 bytes", "less");
  if (bytes.size() < kLengthBytes) {
    fail(name, "a safetensors file of at least 8 bytes", std::to_string(bytes.size()) + " bytes");
  }
  std::uint64_t header_size = 0;
  for (std::size_t i = kLengthBytes; i-- > 0;) {
    header_size = (header_size << 8) | std::to_integer<std::uint64_t>(bytes[i]);
  }
  if (header_size > kMaxHeader) {
    fail(name, "a safetensors header of at most " + std::to_string(kMaxHeader) + " bytes",
         std::to_string(header_size) + " bytes");
  }
  if (header_size > bytes.size() - kLengthBytes) {
    fail(name, "a header of " + std::to_string(header_size) + " bytes",
         "a file with " + std::to_string(bytes.size() - kLengthBytes) + " bytes left");
  }
  const std::size_t data_start = kLengthBytes + static_cast<std::size_t>(header_size);
  const std::size_t data_size = bytes.size() - data_start;

  std::vector<Entry> entries =
      HeaderParser(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes,
                   static_cast<std::size_t>(header_size), name)
          .parse();
  for (const Entry& entry : entries) check_extent(entry, data_start, data_size, name);
  check_coverage(entries, data_size, name);

  TensorFile file;
  file.path_ = name;
  file.tensors_.reserve(entries.size());
  for (Entry& entry : entries) {
    file.tensors_.push_back({std::move(entry.name), std::move(entry.dtype), std::move(entry.shape),
                             bytes.data() + data_start + entry.begin, entry.end - entry.begin});
  }
  return file;
}

const TensorFile::Tensor* TensorFile::find(const std::string& name) const {
  for (const Tensor& tensor : tensors_) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

Span<const float> TensorFile::f32(const std::string& name,
                                  const std::vector<std::size_t>& shape) const {
  return typed<float>(*this, name, "F32", shape);
}

Span<const std::int32_t> TensorFile::i32(const std::string& name,
                                         const std::vector<std::size_t>& shape) const {
  return typed<std::int32_t>(*this, name, "I32", shape);
}

Span<const std::int16_t> TensorFile::i16(const std::string& name,
                                         const std::vector<std::size_t>& shape) const {
  return typed<std::int16_t>(*this, name, "I16", shape);
}

}  // namespace threedfa
