// The tensors of a decoder: their canonical names and shapes, and how a family's files hold them. Names and numbers
// only; any thread.
//
//   embed.weight [V, C]                     final_norm.weight [C]           lm_head.weight [V, C], unless tied
//   layers.<i>.attn.norm.weight [C]         layers.<i>.mlp.norm.weight [C]
//   layers.<i>.attn.q.weight [H*D, C]       layers.<i>.attn.k.weight, .v.weight [G*D, C]
//   layers.<i>.attn.out.weight [C, H*D]     layers.<i>.mlp.gate.weight, .up.weight [F, C]   .down.weight [C, F]
// and .bias [rows of the weight] beside each of q, k, v, out, gate, up, down where the spec says so.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "models/families/family.h"
#include "models/families/spec.h"

namespace millrace {

using Sizes = std::vector<int64_t>;  // of a tensor's axes, outermost first

// A canonical tensor that a decoder of this spec needs.
struct TensorNeed {
  std::string name;
  Sizes shape;
};
std::vector<TensorNeed> needed_tensors(const DecoderSpec& spec);
// Elements of all needed tensors.
int64_t parameter_count(const DecoderSpec& spec);

// One tensor of a checkpoint in the family's naming, and the canonical tensors it holds: rows [begin, end) of its first
// axis each; parts cover it without gaps, in order.
struct FileTensor {
  struct Part {
    std::string canonical;
    int64_t begin = 0, end = 0;
  };
  std::string name;
  Sizes shape;
  std::vector<Part> parts;
};
// All tensors of a checkpoint of this spec; together they hold every needed canonical tensor exactly once. Reading
// walks the list one way, writing the other.
std::vector<FileTensor> file_tensors(const Family& family, const DecoderSpec& spec);

std::string sizes_to_string(const Sizes& sizes);  // "[32, 128]"

}  // namespace millrace
