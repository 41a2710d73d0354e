// The merge loop of byte-pair encoding: of all neighbours that may merge, the pair of lowest rank does, the leftmost
// one among equals, until none is left.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace millrace {

struct BpeMerge {
  int32_t left, right, result;  // symbols
  uint32_t rank;
};

// Pairs of symbols and what they become: open addressing, one cache line for most look-ups.
class PairTable {
 public:
  static constexpr uint32_t kNoRank = UINT32_MAX;
  struct Found {
    uint32_t rank = kNoRank;
    int32_t result = -1;
  };

  PairTable() = default;
  // Of equal pairs the last counts. Symbols are not negative; ranks are below kNoRank.
  explicit PairTable(std::span<const BpeMerge> merges);
  Found find(int32_t left, int32_t right) const {
    if (slots_.empty()) return {};
    const uint64_t key = key_of(left, right);
    for (size_t i = start_of(key);; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.key == key) return {slot.rank, slot.result};
      if (slot.key == kEmpty) return {};
    }
  }

 private:
  static constexpr uint64_t kEmpty = UINT64_MAX;
  struct Slot {
    uint64_t key = kEmpty;
    uint32_t rank = 0;
    int32_t result = 0;
  };
  static uint64_t key_of(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  size_t start_of(uint64_t key) const { return (key * 0x9e3779b97f4a7c15u) >> shift_; }
  std::vector<Slot> slots_;
  size_t mask_ = 0;
  int shift_ = 0;
};

// A symbol of a word, and where its text begins in the word.
struct BpeSymbol {
  int32_t id;
  uint32_t begin;
};

// Merges symbols in place. Short words are searched from end to end for each merge; long ones keep a heap, so that a
// word of n symbols takes O(n log n). One thread at a time.
class BpeMerger {
 public:
  void merge(const PairTable& pairs, std::vector<BpeSymbol>& symbols);

 private:
  struct Candidate {
    uint32_t rank, at;
    int32_t result;
    bool operator<(const Candidate& other) const {  // std heaps keep the largest on top
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  struct Node {
    uint32_t previous, next;  // kNone at the ends
    uint32_t rank;            // of the pair of this node and the next
    int32_t result;
  };
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr int32_t kMerged = -1;  // the symbol went into its left neighbour

  void merge_short(const PairTable& pairs, std::vector<BpeSymbol>& symbols);
  void merge_long(const PairTable& pairs, std::vector<BpeSymbol>& symbols);
  void set_pair(const PairTable& pairs, const std::vector<BpeSymbol>& symbols, uint32_t at);
  void push_pair(const PairTable& pairs, const std::vector<BpeSymbol>& symbols, uint32_t at);

  std::vector<PairTable::Found> found_;
  std::vector<Node> nodes_;
  std::vector<Candidate> heap_;
};

}  // namespace millrace
