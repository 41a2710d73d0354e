// Pairs of a prompt and a reference answer, from the files that load tests use. Any thread.
//   sharegpt    JSON list of {"conversations": [{"from", "value"}, ...]}: the first two turns; rows with fewer are
//               skipped
//   alpaca      JSON list of {"instruction", "input", "output"}
//   custom      JSON list of {"input", "output"}, or JSONL of {"prompt"} with an optional "output" or "completion"
//   human-eval  JSONL of {"prompt", "canonical_solution"}
//   spec-bench  JSONL of {"turns": [text, ...]}: the first turn, no reference
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace millrace::data {

struct TextPair {
  std::string prompt, reference;  // the reference may be empty
};

enum class PairFormat { kShareGpt, kAlpaca, kCustom, kHumanEval, kSpecBench };
// kInvalidArgument names the known ones.
Result<PairFormat> find_pair_format(std::string_view name);

// Which part of an Alpaca row is the prompt.
enum class AlpacaPrompt {
  kInput,     // the `input` alone, as the Ascend load scripts take it; many rows have none
  kTemplate,  // the published template around instruction and input
};
Result<std::vector<TextPair>> read_pairs(const std::string& path, PairFormat format,
                                         AlpacaPrompt alpaca = AlpacaPrompt::kInput);

}  // namespace millrace::data
