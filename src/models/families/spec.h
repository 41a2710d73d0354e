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
  enum class Scaling : uint8_t { kNone, kLinear, kDynamic, kYarn, kLongRope, kLlama3, kQwenNtk };
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
    return scaling == Scaling::kDynamic || scaling == Scaling::kQwenNtk ||
           (scaling == Scaling::kLongRope && switches_at_original);
  }
};

enum class NormKind : uint8_t { kRms, kLayer };
enum class Activation : uint8_t { kSilu, kGelu, kGeluTanh, kRelu };

// Linear position biases (Press et al., 2022): slope(h) * (j - i) on the score of key j for query i.
enum class Alibi : uint8_t {
  kNone,
  kScaled,        // added to the scaled scores
  kBf16Unscaled,  // slope, j and their product rounded to bfloat16, added before the scores are scaled
};

// Grouped-query attention: H query heads share G key/value heads of D elements.
struct Gqa {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  bool qkv_bias = false, out_bias = false;
  bool qk_norm = false;  // each head of q and k goes through an RMS norm of [D] before it turns
  int64_t window = 0;    // a query sees itself and the window - 1 keys before it; 0: all
  double scale = 0;      // of q.k before the softmax; 0: 1 / sqrt(head_dim)
  double soft_cap = 0;   // scores become cap * tanh(score / cap); 0: none
  Alibi alibi = Alibi::kNone;
  double alibi_factor = 1;  // multiplies the slopes after they are rounded
  int64_t logn_length = 0;  // the query at position i is multiplied by max(1, log(i + 1) / log(logn_length)); 0: never
};

// Multi-head latent attention (DeepSeek-V2, 2024): keys and values of all heads are made from one latent per token.
//   q = q_b(norm(q_a(x)))  or  q(x);  H heads of nope_dim + rope_dim
//   [latent | k_rope] = kv_a(x);  [k_nope | v] of head h = rows of h of kv_b times norm(latent);  k_rope is every
//   head's
struct Mla {
  int64_t heads = 0;
  int64_t q_lora_rank = 0;  // 0: q is one product
  int64_t kv_lora_rank = 0;
  int64_t nope_dim = 0, rope_dim = 0, v_dim = 0;
  bool bias = false;  // of q_a, kv_a and out
  double scale = 0;   // of q.k before the softmax
  // Elements a token takes in the cache.
  int64_t cache_dim() const { return kv_lora_rank + rope_dim; }
  int64_t qk_dim() const { return nope_dim + rope_dim; }
};

// y = down(act(gate(x)) * up(x))
struct Glu {
  int64_t hidden = 0;  // F
  Activation activation = Activation::kSilu;
  bool bias = false;
};

// y = down(act(up(x)))
struct Mlp {
  int64_t hidden = 0;
  Activation activation = Activation::kGelu;
  bool bias = false;
};

// How a token finds its experts. s = score(router(x)), float32; the experts_per_token best are taken, equal scores in
// rising order of the expert.
struct Routing {
  enum class Score : uint8_t { kSoftmax, kSigmoid };
  enum class GroupScore : uint8_t { kMax, kTwoBest };  // of a group: its best score, or the sum of its two best
  Score score = Score::kSoftmax;
  bool correction_bias = false;              // choosing goes by s + bias, weighing by s
  int64_t groups = 1, groups_per_token = 1;  // experts outside the best groups choose with 0 in place of their score
  GroupScore group_score = GroupScore::kMax;
  bool normalize = false;  // weights are divided by their sum
  double scale = 1;        // then multiplied by this
};

// Mixture of experts: y = sum over the chosen e of weight(e) * expert e(x), plus the shared expert's output,
// multiplied by sigmoid(shared_gate(x)) where there is such a gate.
struct Moe {
  int64_t experts = 0, experts_per_token = 0;
  Routing router;
  Glu expert;
  Glu shared;  // hidden 0: none
  bool shared_gate = false;
};

struct LayerSpec {
  std::variant<Gqa, Mla> attention;
  std::variant<Glu, Mlp, Moe> mlp;
};

// How a layer's two branches meet the residual stream h.
enum class Residual : uint8_t {
  kSequential,       // h += attention(norm(h)); h += mlp(norm(h))
  kParallel,         // x = norm(h); h += attention(x) + mlp(x)
  kParallelTwoNorms  // h += attention(norm(h)) + mlp(other norm(h))
};

struct DecoderSpec {
  std::string family;        // name of the family file, for messages
  std::string architecture;  // as config.json states it
  int64_t vocab_size = 0, hidden_size = 0;
  int64_t max_positions = 0;  // longest sequence the checkpoint promises (rope scaling included); see length_unbounded
  bool length_unbounded = false;  // the rotation adapts to any length: max_positions is a default, not a limit
  std::vector<LayerSpec> layers;
  Rope rope;
  int64_t learned_positions = 0;  // rows of a table that is added to the embedding; 0: none
  NormKind norm = NormKind::kRms;
  double norm_eps = 1e-6;
  bool norm_bias = false;
  bool norm_plus_one = false;  // norms multiply by 1 + weight
  bool branch_norms = false;   // each branch's output goes through a norm before it is added
  Residual residual = Residual::kSequential;
  bool tie_word_embeddings = false;
  bool normalized_head = false;  // rows of lm_head are divided by their Euclidean length
  double embedding_scale = 1;    // rounded to the type the model runs in
  double logit_scale = 1, residual_scale = 1, final_logit_soft_cap = 0;
  int64_t next_token_layers = 0;  // layers behind the last that files may hold for speculation; not part of the decoder
  DType dtype = DType::kF32;      // what the checkpoint says it is stored in
  std::vector<int32_t> eos_token_ids;
  int32_t bos_token_id = -1;  // -1: none
};

}  // namespace millrace
