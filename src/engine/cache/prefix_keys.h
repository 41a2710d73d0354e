// Keys under which full KV blocks are found again. A block's key is
//   H(key of the block before it, token ids of the block, extra keys),
// so it stands for the whole prefix that ends with the block. Keys only find candidates: BlockManager compares content.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace millrace {

// XXH3-128.
struct BlockKey {
  uint64_t low = 0, high = 0;
  bool operator==(const BlockKey&) const = default;
};

// What keys and values depend on besides the tokens. Two prefixes share blocks only if all of this is equal.
struct CacheScope {
  // Tokens [begin, end) stand for a picture, video or sound with this content.
  struct Media {
    int64_t begin = 0, end = 0;
    std::array<uint64_t, 2> content_hash{};
  };
  std::string adapter;       // name of the LoRA adapter; empty: none
  std::string salt;          // the request's cache_salt
  std::vector<Media> media;  // by rising position
  uint64_t private_to = 0;   // not 0: the request whose sequences alone may share

  // The extra keys of the block with tokens [begin, end), as bytes: adapter and private_to, media that overlap the
  // block, and for the first block the salt. Empty when there is none.
  std::string extra_keys(int64_t begin, int64_t end) const;
};

// The keys of one sequence's full blocks, computed once each as the sequence grows.
class PrefixKeys {
 public:
  PrefixKeys() = default;
  PrefixKeys(CacheScope scope, int32_t block_tokens) : scope_(std::move(scope)), block_tokens_(block_tokens) {}
  // Adds the keys of the blocks that `tokens` fills. `tokens` starts with what it was at the last call.
  void extend(std::span<const int32_t> tokens);

  int64_t num_blocks() const { return static_cast<int64_t>(keys_.size()); }
  const BlockKey& key(int64_t block) const { return keys_[static_cast<size_t>(block)]; }
  std::string extra_keys(int64_t block) const {
    return scope_.extra_keys(block * block_tokens_, (block + 1) * block_tokens_);
  }

 private:
  CacheScope scope_;
  int32_t block_tokens_ = 0;
  std::vector<BlockKey> keys_;
};

}  // namespace millrace
