#include "engine/cache/prefix_keys.h"

#include <algorithm>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace millrace {
namespace {

constexpr BlockKey kNoParent = {0x6d696c6c72616365u, 0x7072656669786573u};

template <class T>
void append_bytes(std::string& out, const T& value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// A tag and a length before each part keep different parts from reading alike.
void append_text(std::string& out, char tag, const std::string& text) {
  if (text.empty()) return;
  out.push_back(tag);
  append_bytes(out, static_cast<uint64_t>(text.size()));
  out += text;
}

BlockKey hash_block(const BlockKey& parent, std::span<const int32_t> tokens, const std::string& extra) {
  XXH3_state_t state;
  XXH3_128bits_reset(&state);
  XXH3_128bits_update(&state, &parent, sizeof parent);
  XXH3_128bits_update(&state, tokens.data(), tokens.size_bytes());
  XXH3_128bits_update(&state, extra.data(), extra.size());
  const XXH128_hash_t hash = XXH3_128bits_digest(&state);
  return {hash.low64, hash.high64};
}

}  // namespace

std::string CacheScope::extra_keys(int64_t begin, int64_t end) const {
  std::string out;
  append_text(out, 'a', adapter);
  if (private_to != 0) {
    out.push_back('p');
    append_bytes(out, private_to);
  }
  for (const Media& item : media) {
    if (item.end <= begin || item.begin >= end) continue;
    out.push_back('m');
    append_bytes(out, item.begin - begin);
    append_bytes(out, item.content_hash);
  }
  if (begin == 0) append_text(out, 's', salt);
  return out;
}

void PrefixKeys::extend(std::span<const int32_t> tokens) {
  constexpr size_t kUsualBlocks = 64;
  const auto block_tokens = static_cast<size_t>(block_tokens_);
  if (keys_.empty()) keys_.reserve(std::max(kUsualBlocks, 2 * (tokens.size() / block_tokens)));
  while ((keys_.size() + 1) * block_tokens <= tokens.size()) {
    const BlockKey& parent = keys_.empty() ? kNoParent : keys_.back();
    const auto block = tokens.subspan(keys_.size() * block_tokens, block_tokens);
    keys_.push_back(hash_block(parent, block, extra_keys(num_blocks())));
  }
}

}  // namespace millrace
