// Reads the wire format of protocol buffers: a message is a row of (field number, value).
#pragma once
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>

namespace millrace {

class ProtobufReader {
 public:
  explicit ProtobufReader(std::string_view bytes) : bytes_(bytes) {}

  struct Field {
    uint32_t number = 0;
    uint64_t value = 0;      // of varint and fixed fields
    std::string_view bytes;  // of length-delimited fields
    float as_float() const {
      const auto bits = static_cast<uint32_t>(value);
      float f;
      std::memcpy(&f, &bits, 4);
      return f;
    }
  };
  // The next field; nothing at the end, or where the bytes are broken (then ok() is false).
  std::optional<Field> next();
  bool ok() const { return ok_; }
  size_t position() const { return at_; }

 private:
  std::optional<Field> fail() {
    ok_ = false;
    return std::nullopt;
  }
  std::optional<uint64_t> varint();
  std::optional<uint64_t> fixed(size_t bytes);

  std::string_view bytes_;
  size_t at_ = 0;
  bool ok_ = true;
};

}  // namespace millrace
