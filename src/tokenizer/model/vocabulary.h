// Tokens and their ids. Strings lie one after another in one buffer; a hash table of 8-byte slots finds the id of a
// string. Immutable after build; any thread.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace millrace {

uint64_t hash_bytes(std::string_view bytes);

class Vocabulary {
 public:
  static constexpr int32_t kMaxIds = 1 << 22;
  using Entry = std::pair<std::string, int32_t>;

  Vocabulary() = default;
  // Ids must be in [0, kMaxIds); of two equal strings the last entry counts, and an id keeps its last string. An error
  // names the token.
  static Result<Vocabulary> build(const std::vector<Entry>& entries);

  // The id of `token`, -1 if there is none.
  int32_t find(std::string_view token) const;
  // "" for an id that has no token.
  std::string_view text(int32_t id) const {
    if (id < 0 || id >= end_id()) return {};
    return {bytes_.data() + begin_[static_cast<size_t>(id)], length_[static_cast<size_t>(id)]};
  }
  bool has(int32_t id) const { return id >= 0 && id < end_id() && present_[static_cast<size_t>(id)]; }
  // One more than the largest id.
  int32_t end_id() const { return static_cast<int32_t>(begin_.size()); }
  // Number of distinct tokens.
  int32_t size() const { return count_; }
  size_t longest_token_bytes() const { return longest_; }

 private:
  struct Slot {
    uint32_t tag = 0;
    int32_t id = -1;
  };
  void insert(std::string_view token, int32_t id);

  std::string bytes_;
  std::vector<uint32_t> begin_, length_;
  std::vector<bool> present_;
  std::vector<Slot> slots_;
  int32_t count_ = 0;
  size_t longest_ = 0;
};

}  // namespace millrace
