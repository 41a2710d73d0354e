// DecoderSpec: everything the arithmetic of a decoder-only language model depends on, in the project's own words.
// A family (one file of this folder) fills it from config.json; inference, training, conversion and planning read it.
// Plain data, no tensors. Sizes are checked when the spec is made: positive, divisible, and bounded.
#pragma once
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/dtype.h"

namespace millrace {

// How positions turn queries and keys. Formulas: transformers, modeling_rope_utils.py.
struct Rope {
  enum class Scaling : uint8_t { kNone, kLinear, kDynamic, kYarn, kLongRope, kLlama3 };
  enum class Layout : uint8_t { kHalves, kInterleaved };  // which elements form a pair: (i, i + D/2) or (2i, 2i + 1)
  double theta = 10000;
  int64_t dims = 0;  // rotated elements of each head, from its start; 0: no rotation
  Layout layout = Layout::kHalves;
  Scaling scaling = Scaling::kNone;
  double factor = 1;
  int64_t original_max_positions = 0;                // length the model was trained at, where the scaling needs it
  double attention_factor = 0;                       // multiplies cos and sin; 0: the scaling's own rule
  double beta_fast = 32, beta_slow = 1;              // yarn
  double mscale = 0, mscale_all_dim = 0;             // yarn
  bool truncate = true;                              // yarn: correction range rounded to whole dimensions
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
  std::vector<double> short_factor, long_factor;     // longrope, dims / 2 each
  bool switches_at_original = false;  // longrope: short_factor up to original_max_positions, long_factor beyond it;
                                      // otherwise one of them at every length: long_factor where factor > 1
  // Rotations depend on the whole sequence's length (dynamic beyond original_max_positions, switching longrope across
  // it), so keys computed at one length are wrong at another.
  bool depends_on_length() const {
    return scaling == Scaling::kDynamic || (scaling == Scaling::kLongRope && switches_at_original);
  }
};

enum class NormKind : uint8_t { kRms, kLayer };
enum class Activation : uint8_t { kSilu, kGelu, kGeluTanh, kRelu };

// Grouped-query attention: H query heads share G key/value heads of D elements.
struct Gqa {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  bool qkv_bias = false, out_bias = false;
  int64_t window = 0;   // a query sees itself and the window - 1 keys before it; 0: all
  double scale = 0;     // of q.k before the softmax; 0: 1 / sqrt(head_dim)
  double soft_cap = 0;  // scores become cap * tanh(score / cap); 0: none
};

// y = down(act(gate(x)) * up(x))
struct Glu {
  int64_t hidden = 0;  // F
  Activation activation = Activation::kSilu;
  bool bias = false;
};

struct LayerSpec {
  std::variant<Gqa> attention;
  std::variant<Glu> mlp;
};

struct DecoderSpec {
  std::string family;        // name of the family file, for messages
  std::string architecture;  // as config.json states it
  int64_t vocab_size = 0, hidden_size = 0;
  int64_t max_positions = 0;  // longest sequence the checkpoint promises (rope scaling included); see length_unbounded
  bool length_unbounded = false;  // the rotation adapts to any length: max_positions is a default, not a limit
  std::vector<LayerSpec> layers;
  Rope rope;
  NormKind norm = NormKind::kRms;
  double norm_eps = 1e-6;
  bool tie_word_embeddings = false;
  double embedding_scale = 1, logit_scale = 1, residual_scale = 1, final_logit_soft_cap = 0;
  DType dtype = DType::kF32;  // what the checkpoint says it is stored in
  std::vector<int32_t> eos_token_ids;
  int32_t bos_token_id = -1;  // -1: none
};

}  // namespace millrace
