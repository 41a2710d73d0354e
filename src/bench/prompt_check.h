// Holds the lengths of text prompts to the server's own tokenizer, through its /tokenize and /detokenize. Blocking.
#pragma once
#include <string>
#include <vector>

#include "bench/load.h"

namespace millrace::bench {

struct PromptCheck {
  bool asked = false;     // false: nothing to ask, or the server has no /tokenize
  int64_t recreated = 0;  // prompts made anew to the length that the server counts
  int64_t inexact = 0;    // of those, the ones that still miss it
  std::string note;       // one line for the report; "" when the counts agree
};

// Asks the server how many tokens the first text prompt has: `synthetic` ones without special tokens, a data set's with
// them. When it counts otherwise and the prompts are `synthetic`, all are cut or extended to their `prompt_tokens` by
// the server's count, at most three times each, the first `shared_bytes` of each left as they are; texts of a data set
// are left alone. A prompt that still misses takes the server's count as its own. The error is a /tokenize that stops
// answering half way.
Result<PromptCheck> check_prompts(const LoadTarget& target, bool synthetic, size_t shared_bytes,
                                  std::vector<LoadRequest>& requests);

}  // namespace millrace::bench
