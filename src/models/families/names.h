// The tensors of a decoder: their canonical names and shapes, and how a family's files hold them. Names and numbers
// only; any thread.
//
//   embed.weight [V, C]     pos_embed.weight [positions, C]     final_norm.weight [C]     lm_head.weight [V, C], unless
//   tied layers.<i>.attn.norm, .mlp.norm [C]; .attn.post_norm, .mlp.post_norm [C] where branches end in a norm
//   attention    layers.<i>.attn.q [H*D, C]   .k, .v [G*D, C]   .out [C, H*D]   .q_norm, .k_norm [D]
//   latent       layers.<i>.attn.q [H*(nope+rope), C], or .q_a [rank, C], .q_a_norm [rank], .q_b [H*(nope+rope), rank]
//                .kv_a [kv_rank + rope, C]   .kv_a_norm [kv_rank]   .kv_b [H*(nope+v), kv_rank]   .out [C, H*v]
//   feed-forward layers.<i>.mlp.gate, .up [F, C]   .down [C, F]; without gate where it is not gated
//   experts      layers.<i>.mlp.router [E, C]   .router.correction_bias [E]   .experts.<e>.gate, .up, .down
//                .shared.gate, .up, .down   .shared_gate [1, C]
// Names stand for their .weight; .bias [rows of the weight] stands beside it where the spec says so.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
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

// One tensor of a checkpoint in the family's naming, and the canonical tensors it holds.
struct FileTensor {
  enum class Layout : uint8_t {
    kRows,        // part i is rows [begin, end) of the first axis
    kColumns,     // the file holds the transpose of that: part i is columns [begin, end), transposed
    kHeadGroups,  // the first axis is `groups` equal runs, each with (end - begin) / groups rows of every part in order
  };
  struct Part {
    std::string canonical;
    int64_t begin = 0, end = 0;  // parts cover the file's rows without gaps, in order
  };
  std::string name;
  Sizes shape;
  std::vector<Part> parts;
  Layout layout = Layout::kRows;
  int64_t groups = 1;
};
// All tensors of a checkpoint of this spec; together they hold every needed canonical tensor exactly once. Reading
// walks the list one way, writing the other.
std::vector<FileTensor> file_tensors(const Family& family, const DecoderSpec& spec);

// Whether a file's tensor belongs to the layers that DecoderSpec::next_token_layers counts.
bool is_next_token_tensor(const Family& family, const DecoderSpec& spec, std::string_view name);

std::string sizes_to_string(const Sizes& sizes);  // "[32, 128]"

}  // namespace millrace
