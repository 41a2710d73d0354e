// One step's work for a decoder, in ragged form: S sequences with T new tokens in all. Models know no requests: this is
// all they see. Made by the engine from a StepPlan, reused from step to step without allocation.
#pragma once
#include <cstdint>
#include <vector>

namespace millrace {

struct Batch {
  // Per new token, sequence after sequence, positions rising within a sequence.
  std::vector<int32_t> tokens;     // [T] ids, each in [0, vocab)
  std::vector<int32_t> positions;  // [T]

  // Per sequence. Its new tokens are tokens[query_start[s] .. query_start[s + 1]), at positions
  // [context_len[s] - new tokens, context_len[s]).
  std::vector<int32_t> query_start;  // [S + 1]
  std::vector<int32_t> context_len;  // [S] tokens whose keys exist once this step is done
  std::vector<int32_t> rope_len;     // [S] whole length the rotation is for (see Rope::depends_on_length)
  std::vector<int32_t> block_table;  // [S, max_blocks] numbers of KV blocks; unused entries are -1
  int32_t max_blocks = 0;

  // Rows of [0, T) whose logits somebody wants, rising.
  std::vector<int32_t> logit_rows;

  int64_t num_tokens() const { return static_cast<int64_t>(tokens.size()); }
  int64_t num_sequences() const { return static_cast<int64_t>(context_len.size()); }
  void clear() {
    tokens.clear(), positions.clear(), context_len.clear(), rope_len.clear(), block_table.clear(), logit_rows.clear();
    query_start.assign(1, 0);
  }
};

}  // namespace millrace
