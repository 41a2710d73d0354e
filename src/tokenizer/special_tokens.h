// Tokens with a role, by their text. An empty string means that the tokenizer has no such token.
#pragma once
#include <string>
#include <vector>

namespace millrace {

struct SpecialTokens {
  std::string bos, eos, unk, pad, sep, cls, mask;
  std::vector<std::string> additional;
};

}  // namespace millrace
