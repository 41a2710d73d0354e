#include "models/decoder_tile.h"

#include <algorithm>
#include <cmath>

namespace millrace {

DecoderTile::DecoderTile(const Rope& rope, int64_t max_tokens)
    : rope_(rope),
      slots_(max_tokens),
      cos_(Tensor::empty(DType::kF32, {max_tokens, std::max<int64_t>(1, rope.dims / 2)})),
      sin_(Tensor::empty(DType::kF32, {max_tokens, std::max<int64_t>(1, rope.dims / 2)})) {}

void DecoderTile::assign(const Batch& batch, int64_t begin, int64_t end, int64_t block_tokens) {
  batch_ = &batch;
  begin_ = begin;
  end_ = end;
  logn_length_ = 0;
  cut_sequences();
  step_ = {query_start_, context_len_, block_table_, batch.max_blocks};
  kv_slots(step_, block_tokens, std::span(slots_).first(num_tokens()));
  if (rope_.dims > 0) fill_rotations();
}

// The sequences' parts that lie in [begin_, end_): a part ends at its own last position, so later tokens are not seen.
void DecoderTile::cut_sequences() {
  query_start_.assign(1, 0);
  context_len_.clear(), block_table_.clear(), rope_len_.clear(), wanted_.clear();
  for (int64_t s = 0; s < batch_->num_sequences(); ++s) {
    const int64_t from = std::max<int64_t>(batch_->query_start[s], begin_);
    const int64_t to = std::min<int64_t>(batch_->query_start[s + 1], end_);
    if (from >= to) continue;
    query_start_.push_back(static_cast<int32_t>(to - begin_));
    context_len_.push_back(batch_->positions[to - 1] + 1);
    rope_len_.push_back(batch_->rope_len[s]);
    const auto blocks = batch_->block_table.begin() + s * batch_->max_blocks;
    block_table_.insert(block_table_.end(), blocks, blocks + batch_->max_blocks);
  }
  const std::vector<int32_t>& rows = batch_->logit_rows;
  const auto first = std::lower_bound(rows.begin(), rows.end(), begin_);
  wanted_before_ = first - rows.begin();
  for (auto row = first; row != rows.end() && *row < end_; ++row)
    wanted_.push_back(static_cast<int32_t>(*row - begin_));
}

const AttentionStep& DecoderTile::wanted_step() {
  wanted_start_.assign(1, 0);
  wanted_context_.clear(), wanted_table_.clear();
  for (size_t s = 0, i = 0; i < wanted_.size(); ++i) {
    while (wanted_[i] >= query_start_[s + 1]) ++s;
    wanted_start_.push_back(static_cast<int32_t>(i + 1));
    wanted_context_.push_back(positions()[wanted_[i]] + 1);
    const auto blocks = block_table_.begin() + static_cast<int64_t>(s) * batch_->max_blocks;
    wanted_table_.insert(wanted_table_.end(), blocks, blocks + batch_->max_blocks);
  }
  wanted_step_ = {wanted_start_, wanted_context_, wanted_table_, batch_->max_blocks};
  return wanted_step_;
}

const RopeFrequencies& DecoderTile::frequencies(int64_t length) {
  if (!rope_.depends_on_length()) length = 0;
  if (length != frequencies_length_) {
    frequencies_ = rope_frequencies(rope_, length);
    frequencies_length_ = length;
  }
  return frequencies_;
}

// Angles are products of float32 values, as in the reference implementation, so that far positions agree with it.
void DecoderTile::fill_rotations() {
  const int64_t half = rope_.dims / 2;
  for (size_t s = 0; s + 1 < query_start_.size(); ++s) {
    const RopeFrequencies& turn = frequencies(rope_len_[s]);
    for (int64_t t = query_start_[s]; t < query_start_[s + 1]; ++t) {
      const auto position = static_cast<float>(batch_->positions[begin_ + t]);
      float* cos = cos_.data<float>() + t * half;
      float* sin = sin_.data<float>() + t * half;
      for (int64_t i = 0; i < half; ++i) {
        const double angle = position * static_cast<float>(turn.inv_freq[i]);
        cos[i] = static_cast<float>(std::cos(angle) * turn.attention_factor);
        sin[i] = static_cast<float>(std::sin(angle) * turn.attention_factor);
      }
    }
  }
}

std::span<const float> DecoderTile::logn_factors(int64_t length) {
  if (logn_length_ == length) return logn_;
  logn_length_ = length;
  logn_.clear();
  const double one = std::log(static_cast<double>(length));
  for (const int32_t position : positions())
    logn_.push_back(std::max(1.0f, static_cast<float>(std::log(position + 1.0) / one)));
  return logn_;
}

}  // namespace millrace
