#include "tokenizer/text/trie.h"

#include <algorithm>
#include <array>

namespace millrace {

// Places nodes depth first, each node's children at the first base where all of them fit.
class Trie::Builder {
 public:
  using Keys = std::vector<std::pair<std::string_view, int32_t>>;
  Builder(const Keys& keys, std::vector<Node>& nodes) : keys_(keys), nodes_(nodes) {}

  void build() {
    grow();
    nodes_[0].parent = 0;
    std::vector<Range> open = {{0, 0, keys_.size(), 0}};
    while (!open.empty()) {
      const Range range = open.back();
      open.pop_back();
      place(range, open);
    }
  }

 private:
  struct Range {
    uint32_t node;
    size_t begin, end;  // of the keys that pass through the node
    size_t depth;
  };

  void place(Range range, std::vector<Range>& open) {
    while (range.begin < range.end && keys_[range.begin].first.size() == range.depth)
      nodes_[range.node].value = keys_[range.begin++].second;
    if (range.begin == range.end) return;
    labels_.clear();
    starts_.clear();
    for (size_t i = range.begin; i < range.end; ++i) {
      const auto label = static_cast<uint8_t>(keys_[i].first[range.depth]);
      if (!labels_.empty() && labels_.back() == label) continue;
      labels_.push_back(label);
      starts_.push_back(i);
    }
    starts_.push_back(range.end);
    const uint32_t base = find_base();
    nodes_[range.node].base = base;
    for (size_t k = 0; k < labels_.size(); ++k) {
      nodes_[base + labels_[k]].parent = range.node;
      open.push_back({base + labels_[k], starts_[k], starts_[k + 1], range.depth + 1});
    }
  }

  bool is_free(uint32_t at) const { return nodes_[at].parent == kNoParent; }

  void grow() {
    nodes_.resize(nodes_.size() * 2 + 256);
    for (auto at = static_cast<uint32_t>(free_from_.size()); at < nodes_.size(); ++at) free_from_.push_back(at);
  }
  // The first free node from `at` on. What was found to be taken is skipped the next time.
  uint32_t next_free(uint32_t at) {
    while (!is_free(free_from_[at])) {
      free_from_[at] = free_from_[free_from_[at] + 1];
      if (free_from_[at] + 257 >= nodes_.size()) grow();
    }
    return free_from_[at];
  }

  // Holes that refused many nodes are given up.
  uint32_t find_base() {
    uint32_t tries = 0;
    for (uint32_t slot = std::max<uint32_t>(first_free_, labels_[0] + 1u);; ++slot) {
      if (slot + 257 >= nodes_.size()) grow();
      slot = next_free(slot);
      const uint32_t base = slot - labels_[0];
      if (std::all_of(labels_.begin(), labels_.end(), [&](uint8_t label) { return is_free(base + label); }))
        return base;
      if (++tries < kTriesPerHole) continue;
      first_free_ = slot;
      tries = 0;
    }
  }

  static constexpr uint32_t kTriesPerHole = 64;
  const Keys& keys_;
  std::vector<Node>& nodes_;
  std::vector<uint8_t> labels_;
  std::vector<size_t> starts_;
  std::vector<uint32_t> free_from_;  // a place at or before the next free node
  uint32_t first_free_ = 1;
};

Trie::Trie(std::vector<std::pair<std::string_view, int32_t>> keys) {
  std::erase_if(keys, [](const auto& key) { return key.first.empty(); });
  if (keys.empty()) return;
  std::stable_sort(keys.begin(), keys.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  Builder(keys, nodes_).build();
  while (nodes_.back().parent == kNoParent) nodes_.pop_back();
  nodes_.shrink_to_fit();
}

}  // namespace millrace
