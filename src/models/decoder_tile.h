// The part of a Batch that runs through the layers at once, and the rotations of its tokens. Memory is kept from tile
// to tile.
#pragma once
#include <cstdint>
#include <vector>

#include "models/batch.h"
#include "models/families/rope.h"
#include "ops/attention.h"
#include "tensor/tensor.h"

namespace millrace {

class DecoderTile {
 public:
  DecoderTile(const Rope& rope, int64_t max_tokens);

  // Takes tokens [begin, end) of the batch; end - begin <= max_tokens. The batch must outlive the tile's use.
  void assign(const Batch& batch, int64_t begin, int64_t end, int64_t block_tokens);

  int64_t num_tokens() const { return end_ - begin_; }
  std::span<const int32_t> tokens() const { return std::span(batch_->tokens).subspan(begin_, num_tokens()); }
  std::span<const int32_t> positions() const { return std::span(batch_->positions).subspan(begin_, num_tokens()); }
  const AttentionStep& step() const { return step_; }
  std::span<const int64_t> slots() const { return {slots_.data(), static_cast<size_t>(num_tokens())}; }
  // [T, dims / 2] float32
  Tensor cos() const { return cos_.rows(0, num_tokens()); }
  Tensor sin() const { return sin_.rows(0, num_tokens()); }
  // max(1, log(position + 1) / log(length)) of every token. Requires length >= 2; made anew where it differs from the
  // last one asked for.
  std::span<const float> logn_factors(int64_t length);
  // Wanted rows, counted within the tile, and the number of wanted rows of earlier tiles.
  std::span<const int32_t> wanted_rows() const { return wanted_; }
  int64_t wanted_before() const { return wanted_before_; }
  // The wanted rows alone, each as a sequence of one new token; until the next call or assign().
  const AttentionStep& wanted_step();

 private:
  void cut_sequences();
  void fill_rotations();
  const RopeFrequencies& frequencies(int64_t length);

  const Rope& rope_;
  const Batch* batch_ = nullptr;
  int64_t begin_ = 0, end_ = 0, wanted_before_ = 0;
  std::vector<int32_t> query_start_, context_len_, block_table_, rope_len_, wanted_;
  std::vector<int64_t> slots_;
  AttentionStep step_, wanted_step_;
  std::vector<int32_t> wanted_start_, wanted_context_, wanted_table_;  // of wanted_step_
  Tensor cos_, sin_;
  RopeFrequencies frequencies_;
  int64_t frequencies_length_ = -1;
  std::vector<float> logn_;  // [T]
  int64_t logn_length_ = 0;  // 0: logn_ is of an earlier tile
};

}  // namespace millrace
