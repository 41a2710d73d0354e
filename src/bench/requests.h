// The requests of a load: of random tokens or from a data set's texts. Pure functions of their arguments and the seed.
#pragma once
#include <memory>
#include <vector>

#include "bench/back_end.h"
#include "bench/prompts.h"
#include "data/text_pairs.h"

namespace millrace::bench {

struct RandomLoad {
  int64_t input_tokens = 1024, output_tokens = 128;
  int64_t prefix_tokens = 0;  // at the front, the same in all requests and part of input_tokens
  double range_ratio = 0;     // lengths are uniform on [floor(n (1 - r)), ceil(n (1 + r))]
};

struct Requests {
  std::vector<LoadRequest> requests;
  int64_t inexact = 0;      // prompts whose token count misses the wanted one
  size_t shared_bytes = 0;  // at the front of every text prompt, the same in all
  int64_t repeated = 0;     // rows of a data set that are sent more than once
};

// Prompts are sent as ids where `back_end` takes them, else as text, which needs the tokenizer. All differ.
Result<Requests> random_requests(const RandomLoad& load, int64_t count, const BackEnd& back_end,
                                 const std::shared_ptr<const Tokenizer>& tokenizer, uint64_t seed);

struct PairLoad {
  int64_t min_tokens = 4;                // prompts and references shorter than this are left out
  int64_t max_prompt_tokens = 1024;      // longer prompts are left out
  int64_t max_total_tokens = 2048;       // of prompt and output:
  bool cut_to_total = false;             // false: beyond it a row is left out; true: its output is cut
  std::optional<int64_t> output_tokens;  // for all; else the reference's length
};
// A random choice without replacement, in random order; when the rows do not suffice they are used again.
// kInvalidArgument when no row passes.
Result<Requests> pair_requests(const std::vector<data::TextPair>& pairs, const PairLoad& load, int64_t count,
                               const Tokenizer& tokenizer, uint64_t seed);

}  // namespace millrace::bench
