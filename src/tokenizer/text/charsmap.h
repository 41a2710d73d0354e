// sentencepiece's precompiled character map: a double-array trie from character sequences to replacements.
// Layout: u32 bytes of the trie, the trie's units (u32 each, darts-clone), then replacement strings ended by NUL; the
// trie's values are offsets into those. All little endian.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace millrace {

class CharsMap {
 public:
  // An empty blob maps nothing.
  static Result<CharsMap> parse(std::string_view blob);

  struct Match {
    size_t bytes;  // of the text that are replaced
    std::string_view replacement;
  };
  std::optional<Match> longest_prefix(std::string_view text) const;
  std::optional<Match> shortest_prefix(std::string_view text) const;
  bool empty() const { return units_.empty(); }

 private:
  // Calls fn(bytes, value) for each key that is a prefix of text, shortest first, until it returns false.
  template <class Fn>
  void prefixes(std::string_view text, Fn fn) const;
  std::string_view replacement(uint32_t offset) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace millrace
