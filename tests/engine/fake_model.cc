#include "tests/engine/fake_model.h"

#include <algorithm>

#include "base/random.h"
#include "base/utf8.h"

namespace millrace {
namespace {

constexpr uint64_t kSeed = 0x5eed;

uint64_t extend(uint64_t hash, int32_t token) {
  const auto bits = philox(hash, static_cast<uint64_t>(token));
  return (uint64_t{bits[0]} << 32) | bits[1];
}

void fill_logits(uint64_t hash, std::span<float> out) {
  for (size_t v = 0; v < out.size(); ++v) out[v] = 8 * uniform_open(philox(hash, v, 1)[0]) - 4;
}

class FakeTextDecoder : public TextDecoder {
 public:
  std::string append(int32_t token) override {
    bytes_ += fake_piece(token);
    std::string held = bytes_.substr(bytes_.size() - utf8_incomplete_suffix(bytes_));
    bytes_.resize(bytes_.size() - held.size());
    return utf8_replace_invalid(std::exchange(bytes_, std::move(held)));
  }
  std::string flush() override { return utf8_replace_invalid(std::exchange(bytes_, {})); }

 private:
  std::string bytes_;
};

}  // namespace

FakeModel::FakeModel(const Info& info)
    : info_(info), slots_(static_cast<size_t>(int64_t{info.num_blocks} * info.block_tokens)) {}

std::vector<float> FakeModel::logits_after(std::span<const int32_t> prefix, int64_t vocab_size) {
  uint64_t hash = kSeed;
  for (const int32_t token : prefix) hash = extend(hash, token);
  std::vector<float> out(static_cast<size_t>(vocab_size));
  fill_logits(hash, out);
  return out;
}

FakeModel::Slot& FakeModel::slot(const Batch& batch, int64_t s, int64_t position) {
  const int64_t block = batch.block_table.at(static_cast<size_t>(s * batch.max_blocks + position / info_.block_tokens));
  return slots_.at(static_cast<size_t>(block * info_.block_tokens + position % info_.block_tokens));
}

Status FakeModel::forward(const Batch& batch) {
  if (on_forward) on_forward(batch);
  largest_batch = std::max(largest_batch.load(), batch.num_tokens());
  row_hashes_.clear();
  for (int64_t s = 0; s < batch.num_sequences(); ++s) {
    const auto at = static_cast<size_t>(s);
    const int64_t length = batch.rope_len[at];
    const int64_t rotation = info_.rotation.group(length);
    for (int64_t t = batch.query_start[at]; t < batch.query_start[at + 1]; ++t) {
      const int32_t position = batch.positions[static_cast<size_t>(t)];
      slot(batch, s, position) = {batch.tokens[static_cast<size_t>(t)], position, rotation};
    }
  }
  for (int64_t s = 0; s < batch.num_sequences(); ++s) MR_RETURN_IF_ERROR(read_sequence(batch, s));
  if (row_hashes_.size() != batch.logit_rows.size()) return internal_error("logit rows are not rising");
  return {};
}

// The sequence's whole context must lie in its blocks, each slot for its position and the present rotation.
Status FakeModel::read_sequence(const Batch& batch, int64_t s) {
  const auto at = static_cast<size_t>(s);
  const int64_t length = batch.rope_len[at], context = batch.context_len[at];
  const int64_t rotation = info_.rotation.group(length);
  const int64_t first_new = context - (batch.query_start[at + 1] - batch.query_start[at]);
  uint64_t hash = kSeed;
  for (int64_t position = 0; position < context; ++position) {
    const Slot& kept = slot(batch, s, position);
    if (kept.position != position || kept.rotation != rotation) {
      return internal_error("position {}: the slot has position {} for length {}, wanted length {}", position,
                            kept.position, kept.rotation, rotation);
    }
    hash = extend(hash, kept.token);
    const int64_t row = batch.query_start[at] + position - first_new;
    const size_t next = row_hashes_.size();
    if (position >= first_new && next < batch.logit_rows.size() && batch.logit_rows[next] == row) {
      row_hashes_.push_back(hash);
    }
  }
  return {};
}

Status FakeModel::logits(int64_t begin, int64_t end, float* out) {
  largest_logits_request = std::max(largest_logits_request.load(), end - begin);
  const auto vocab_size = static_cast<size_t>(info_.vocab_size);
  for (int64_t row = begin; row < end; ++row) {
    fill_logits(row_hashes_.at(static_cast<size_t>(row)), {out, vocab_size});
    out += vocab_size;
  }
  return {};
}

std::string fake_piece(int32_t token) {
  if (token == kFakeEos) return "<eos>";
  if (token % 11 == 1) return " ";
  if (token % 11 == 2) return "\xC3";
  if (token % 11 == 3) return "\xA9";
  std::string piece(1, static_cast<char>('a' + token % 7));
  if (token % 5 == 0) piece += static_cast<char>('a' + token % 3);
  return piece;
}

TextDecoderFactory fake_text_decoders() {
  return [](const GenerationRequest&) { return std::make_unique<FakeTextDecoder>(); };
}

std::string fake_text(std::span<const int32_t> tokens) {
  FakeTextDecoder decoder;
  std::string text;
  for (const int32_t token : tokens) text += decoder.append(token);
  return text + decoder.flush();
}

}  // namespace millrace
