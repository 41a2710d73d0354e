// Remembers the ids of short pieces of text that were encoded before: words repeat. Fixed size, one entry of one cache
// line per hash value, the newest wins. One thread at a time.
#pragma once
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace millrace {

class WordCache {
 public:
  static constexpr size_t kKeyBytes = 24, kMostIds = 9, kEntries = 32768;

  // A piece short enough to be remembered, zero-padded.
  struct Key {
    uint64_t words[3] = {0, 0, 0};
    uint8_t bytes = 0;
  };
  static bool fits(size_t bytes) { return bytes <= kKeyBytes; }
  // Requires fits(length). `readable` is how many bytes may be read from `data` on.
  static Key key_of(const char* data, size_t length, size_t readable) {
    Key key;
    key.bytes = static_cast<uint8_t>(length);
    if (readable < kKeyBytes) {
      std::memcpy(key.words, data, length);
      return key;
    }
    std::memcpy(key.words, data, kKeyBytes);
    const size_t bits = length * 8;
    key.words[0] &= low_bits(bits);
    key.words[1] &= low_bits(bits < 64 ? 0 : bits - 64);
    key.words[2] &= low_bits(bits < 128 ? 0 : bits - 128);
    return key;
  }

  // The remembered ids; empty if unknown (no remembered piece has none).
  std::span<const int32_t> find(const Key& key) const {
    const Entry& entry = entries_[slot_of(key)];
    const bool same = entry.words[0] == key.words[0] && entry.words[1] == key.words[1] &&
                      entry.words[2] == key.words[2] && entry.bytes == key.bytes;
    return {entry.ids, same ? entry.count : size_t{0}};
  }
  void remember(const Key& key, std::span<const int32_t> ids) {
    if (ids.empty() || ids.size() > kMostIds) return;
    Entry& entry = entries_[slot_of(key)];
    std::memcpy(entry.words, key.words, kKeyBytes);
    entry.bytes = key.bytes;
    entry.count = static_cast<uint8_t>(ids.size());
    std::memcpy(entry.ids, ids.data(), ids.size_bytes());
  }

 private:
  struct alignas(64) Entry {
    uint64_t words[3] = {0, 0, 0};
    uint8_t bytes = 0, count = 0;
    int32_t ids[kMostIds] = {};
  };
  static_assert(sizeof(Entry) == 64);
  static uint64_t low_bits(size_t bits) { return bits >= 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1; }
  static size_t slot_of(const Key& key) {
    uint64_t h = key.words[0] * 0x9e3779b97f4a7c15u + key.bytes;
    h = (h ^ (h >> 32) ^ key.words[1]) * 0xd6e8feb86659fd93u;
    h = (h ^ (h >> 32) ^ key.words[2]) * 0xa0761d6478bd642fu;
    return h >> (64 - 15);
  }
  static_assert(kEntries == 1 << 15);

  std::vector<Entry> entries_ = std::vector<Entry>(kEntries);
};

}  // namespace millrace
