// What the engine asks of a model. One thread at a time: the engine's.
#pragma once
#include <cstdint>

#include "base/result.h"
#include "models/batch.h"
#include "models/families/rope.h"

namespace millrace {

class ModelRunner {
 public:
  struct Info {
    int64_t vocab_size = 0;
    int64_t max_positions = 0;  // longest sequence it can compute
    int32_t num_blocks = 0;     // KV blocks
    int32_t block_tokens = 16;  // tokens in each
    RotationLengths rotation;   // lengths whose keys are turned alike (Rope::depends_on_length)
  };
  virtual ~ModelRunner() = default;
  virtual const Info& info() const = 0;

  // Computes the batch's tokens, writes their keys and values to the slots its block tables name, and keeps what
  // logits() needs of batch.logit_rows until the next call. Not ok, or an exception: the engine is dead.
  virtual Status forward(const Batch& batch) = 0;

  // Logits of rows [begin, end) of the last batch's `logit_rows` into out [end - begin, V]. The engine asks for as many
  // rows at a time as its byte budget holds.
  virtual Status logits(int64_t begin, int64_t end, float* out) = 0;
};

}  // namespace millrace
