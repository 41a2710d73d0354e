#include "tokenizer/text/charsmap.h"

#include <cstring>

namespace millrace {
namespace {

// Fields of a darts-clone unit.
bool has_leaf(uint32_t unit) { return (unit >> 8) & 1; }
uint32_t leaf_value(uint32_t unit) { return unit & 0x7fffffffu; }
uint32_t label(uint32_t unit) { return unit & 0x800000ffu; }
uint32_t child_offset(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }

}  // namespace

Result<CharsMap> CharsMap::parse(std::string_view blob) {
  CharsMap map;
  if (blob.empty()) return map;
  uint32_t trie_bytes = 0;
  if (blob.size() < 4) return data_loss("the character map has {} bytes; it starts with a 4-byte size", blob.size());
  std::memcpy(&trie_bytes, blob.data(), 4);
  if (trie_bytes > blob.size() - 4 || trie_bytes % 4 != 0)
    return data_loss("the character map says its trie has {} bytes; {} are there and whole units have 4", trie_bytes,
                     blob.size() - 4);
  map.units_.resize(trie_bytes / 4);
  std::memcpy(map.units_.data(), blob.data() + 4, trie_bytes);
  map.replacements_ = blob.substr(4 + trie_bytes);
  return map;
}

template <class Fn>
void CharsMap::prefixes(std::string_view text, Fn fn) const {
  if (units_.empty()) return;
  size_t node = child_offset(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    node ^= byte;
    if (node >= units_.size() || label(units_[node]) != byte) return;
    const uint32_t unit = units_[node];
    node ^= child_offset(unit);
    if (has_leaf(unit) && (node >= units_.size() || !fn(i + 1, leaf_value(units_[node])))) return;
  }
}

std::string_view CharsMap::replacement(uint32_t offset) const {
  if (offset >= replacements_.size()) return {};
  return {replacements_.data() + offset, strnlen(replacements_.data() + offset, replacements_.size() - offset)};
}

std::optional<CharsMap::Match> CharsMap::longest_prefix(std::string_view text) const {
  std::optional<Match> best;
  prefixes(text, [&](size_t bytes, uint32_t value) {
    best = Match{bytes, replacement(value)};
    return true;
  });
  return best;
}

std::optional<CharsMap::Match> CharsMap::shortest_prefix(std::string_view text) const {
  std::optional<Match> first;
  prefixes(text, [&](size_t bytes, uint32_t value) {
    first = Match{bytes, replacement(value)};
    return false;
  });
  return first;
}

}  // namespace millrace
