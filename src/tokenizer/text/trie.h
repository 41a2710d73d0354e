// A trie over byte strings as a double array: one addition and one comparison per byte of a look-up. Immutable after
// build; any thread.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace millrace {

class Trie {
 public:
  Trie() = default;
  // Keys with their values (not negative). Empty keys are left out; of equal keys the last counts.
  explicit Trie(std::vector<std::pair<std::string_view, int32_t>> keys);

  bool empty() const { return nodes_.empty(); }

  // Calls fn(bytes, value) for each key that `text` starts with, shortest first.
  template <class Fn>
  void for_each_prefix(std::string_view text, Fn fn) const {
    if (nodes_.empty()) return;
    uint32_t at = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      const uint32_t next = nodes_[at].base + static_cast<uint8_t>(text[i]);
      if (next >= nodes_.size() || nodes_[next].parent != at) return;
      at = next;
      if (nodes_[at].value >= 0) fn(i + 1, nodes_[at].value);
    }
  }
  struct Match {
    size_t bytes = 0;
    int32_t value = -1;
  };
  // The longest key that `text` starts with; bytes is 0 if there is none.
  Match longest_prefix(std::string_view text) const {
    Match best;
    for_each_prefix(text, [&](size_t bytes, int32_t value) { best = {bytes, value}; });
    return best;
  }

 private:
  static constexpr uint32_t kNoParent = UINT32_MAX;
  struct Node {
    uint32_t base = 0;            // children lie at base + byte
    uint32_t parent = kNoParent;  // kNoParent: free
    int32_t value = -1;           // -1: no key ends here
  };
  class Builder;
  std::vector<Node> nodes_;
};

}  // namespace millrace
