#include "tokenizer/format/protobuf.h"

namespace millrace {

std::optional<uint64_t> ProtobufReader::varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64 && at_ < bytes_.size(); shift += 7) {
    const auto byte = static_cast<uint8_t>(bytes_[at_++]);
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return value;
  }
  return std::nullopt;
}

std::optional<uint64_t> ProtobufReader::fixed(size_t bytes) {
  if (bytes_.size() - at_ < bytes) return std::nullopt;
  uint64_t value = 0;
  std::memcpy(&value, bytes_.data() + at_, bytes);
  at_ += bytes;
  return value;
}

std::optional<ProtobufReader::Field> ProtobufReader::next() {
  if (!ok_ || at_ == bytes_.size()) return std::nullopt;
  const std::optional<uint64_t> key = varint();
  if (!key || *key >> 3 == 0 || *key >> 3 > UINT32_MAX) return fail();
  Field field;
  field.number = static_cast<uint32_t>(*key >> 3);
  std::optional<uint64_t> value;
  switch (*key & 7) {
    case 0:
      value = varint();
      break;
    case 1:
      value = fixed(8);
      break;
    case 5:
      value = fixed(4);
      break;
    case 2:
      value = varint();
      if (!value || *value > bytes_.size() - at_) return fail();
      field.bytes = bytes_.substr(at_, *value);
      at_ += *value;
      break;
    default:
      return fail();
  }
  if (!value) return fail();
  field.value = *value;
  return field;
}

}  // namespace millrace
