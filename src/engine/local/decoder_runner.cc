#include "engine/local/decoder_runner.h"

#include <algorithm>

namespace millrace {
namespace {

// Rows of logits that go through the head together.
constexpr int64_t kHeadRows = 64;

}  // namespace

DecoderRunner::DecoderRunner(std::unique_ptr<Decoder> decoder, KvCache cache, int64_t max_positions, int64_t max_rows)
    : decoder_(std::move(decoder)),
      cache_(std::move(cache)),
      hidden_(Tensor::empty(DType::kF32, {max_rows, decoder_->spec().hidden_size})),
      info_{.vocab_size = decoder_->spec().vocab_size,
            .max_positions = max_positions,
            .num_blocks = static_cast<int32_t>(cache_.config().blocks),
            .block_tokens = static_cast<int32_t>(cache_.config().block_tokens),
            .rotation = rotation_lengths(decoder_->spec().rope)} {}

Status DecoderRunner::forward(const Batch& batch) {
  decoder_->forward(batch, cache_, hidden_);
  return {};
}

Status DecoderRunner::logits(int64_t begin, int64_t end, float* out) {
  const int64_t vocab = info_.vocab_size;
  for (int64_t row = begin; row < end; row += kHeadRows) {
    const int64_t stop = std::min(end, row + kHeadRows);
    Tensor rows(out + (row - begin) * vocab, DType::kF32, {stop - row, vocab});
    decoder_->logits(hidden_.rows(row, stop), rows);
  }
  return {};
}

}  // namespace millrace
