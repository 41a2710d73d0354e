// A model whose logits are a pure function of the tokens before them, read back from its own KV slots: whatever goes
// wrong with blocks, positions or rotations changes tokens or makes forward() fail.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/model_runner.h"
#include "engine/text_decoder.h"

namespace millrace {

constexpr int32_t kFakeEos = 0;

class FakeModel : public ModelRunner {
 public:
  explicit FakeModel(const Info& info);
  const Info& info() const override { return info_; }
  Status forward(const Batch& batch) override;
  Status logits(int64_t begin, int64_t end, float* out) override;

  // The logits that follow a prefix.
  static std::vector<float> logits_after(std::span<const int32_t> prefix, int64_t vocab_size);

  std::function<void(const Batch&)> on_forward;    // called first; may block or throw
  std::atomic<int64_t> largest_logits_request{0};  // rows
  std::atomic<int64_t> largest_batch{0};           // tokens

 private:
  struct Slot {
    int32_t token = -1, position = -1;
    int64_t rotation = 0;  // length it is for; 0: the standard one
  };
  Status read_sequence(const Batch& batch, int64_t s);
  Slot& slot(const Batch& batch, int64_t s, int64_t position);

  const Info info_;
  std::vector<Slot> slots_;
  std::vector<uint64_t> row_hashes_;  // of batch.logit_rows
};

// Pieces of one or two letters, spaces, and single bytes of two-byte characters.
std::string fake_piece(int32_t token);
TextDecoderFactory fake_text_decoders();
// What a decoder of its own says of all tokens.
std::string fake_text(std::span<const int32_t> tokens);

}  // namespace millrace
