#include "tokenizer/model/vocabulary.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <bit>

namespace millrace {

uint64_t hash_bytes(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

Result<Vocabulary> Vocabulary::build(const std::vector<Entry>& entries) {
  Vocabulary vocabulary;
  int32_t end = 0;
  size_t bytes = 0;
  for (const auto& [token, id] : entries) {
    if (id < 0 || id >= kMaxIds)
      return invalid_argument("token '{}' has id {}; ids must be from 0 to {}", token, id, kMaxIds - 1);
    end = std::max(end, id + 1);
    bytes += token.size();
  }
  if (bytes > UINT32_MAX)
    return invalid_argument("the vocabulary has {} bytes; at most {} are allowed", bytes, UINT32_MAX);
  vocabulary.begin_.resize(static_cast<size_t>(end));
  vocabulary.length_.resize(static_cast<size_t>(end));
  vocabulary.present_.resize(static_cast<size_t>(end));
  vocabulary.bytes_.reserve(bytes);
  vocabulary.slots_.resize(std::bit_ceil(entries.size() * 2 + 1));
  for (const auto& [token, id] : entries) vocabulary.insert(token, id);
  return vocabulary;
}

void Vocabulary::insert(std::string_view token, int32_t id) {
  const auto at = static_cast<size_t>(id);
  begin_[at] = static_cast<uint32_t>(bytes_.size());
  length_[at] = static_cast<uint32_t>(token.size());
  present_[at] = true;
  bytes_ += token;
  longest_ = std::max(longest_, token.size());
  const uint64_t hash = hash_bytes(token);
  const auto tag = static_cast<uint32_t>(hash >> 32);
  const size_t mask = slots_.size() - 1;
  size_t slot = hash & mask;
  while (slots_[slot].id >= 0 && (slots_[slot].tag != tag || text(slots_[slot].id) != token)) slot = (slot + 1) & mask;
  if (slots_[slot].id < 0) ++count_;
  slots_[slot] = {tag, id};
}

int32_t Vocabulary::find(std::string_view token) const {
  if (slots_.empty()) return -1;
  const uint64_t hash = hash_bytes(token);
  const auto tag = static_cast<uint32_t>(hash >> 32);
  const size_t mask = slots_.size() - 1;
  for (size_t slot = hash & mask; slots_[slot].id >= 0; slot = (slot + 1) & mask)
    if (slots_[slot].tag == tag && text(slots_[slot].id) == token) return slots_[slot].id;
  return -1;
}

}  // namespace millrace
