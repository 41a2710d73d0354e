// A Decoder with its KV cache, as the engine's model.
#pragma once
#include <memory>

#include "engine/model_runner.h"
#include "models/decoder.h"

namespace millrace {

class DecoderRunner : public ModelRunner {
 public:
  // `max_rows`: most logit rows of a batch.
  DecoderRunner(std::unique_ptr<Decoder> decoder, KvCache cache, int64_t max_positions, int64_t max_rows);
  const Info& info() const override { return info_; }
  Status forward(const Batch& batch) override;
  Status logits(int64_t begin, int64_t end, float* out) override;

 private:
  std::unique_ptr<Decoder> decoder_;
  KvCache cache_;
  Tensor hidden_;  // [max_rows, C]
  Info info_;
};

}  // namespace millrace
