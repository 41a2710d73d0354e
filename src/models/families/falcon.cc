// Falcon: 40B and 180B (two norms side by side), Falcon2-11B (one norm for both branches), 7B (one key/value head, one
// norm), and the sequential Falcon-RW. Defaults: FalconConfig of transformers 4.46.3, whose eager attention adds linear
// biases twice: to the raw scores, and once more with the causal mask.
#include "models/families/families.h"

namespace millrace {

const Family kFalcon = {
    .name = "falcon",
    .hf_architectures = {"FalconForCausalLM"},
    .model_types = {"falcon"},
    .when = {{"new_decoder_architecture", {true}, {}}, {"num_ln_in_parallel_attn", {nullptr, 2}, {}}},
    .based_on = &kLlama,
    .config = {{Field::kKvHeads, "num_kv_heads", nullptr},
               {Field::kMlpHidden, "ffn_hidden_size", nullptr},
               {Field::kActivation, "activation", "gelu"},
               {Field::kNormEps, "layer_norm_epsilon", 1e-5},
               {Field::kTieEmbeddings, "tie_word_embeddings", true},
               {Field::kAlibi, "alibi", false},
               {Field::kQkvBias, "bias", false},
               {Field::kOutBias, "bias", false},
               {Field::kMlpBias, "bias", false},
               {Field::kBosToken, "bos_token_id", 11},
               {Field::kEosTokens, "eos_token_id", 11}},
    .fixed = {{Field::kNormKind, "layer"},
              {Field::kNormBias, true},
              {Field::kAlibiKind, "bf16_unscaled"},
              {Field::kAlibiFactor, 2},
              {Field::kResidual, "parallel_two_norms"},
              {Field::kHeadDim, nullptr},
              {Field::kMlpGated, false},
              {Field::kMlpHiddenFactor, 4}},
    .harmless_keys = {"ff_factor", "multi_query", "new_decoder_architecture", "num_ln_in_parallel_attn",
                      "parallel_attn"},
    .refused = {{"apply_residual_connection_post_layernorm", {false}, "residuals start before the norm"}},
    .weights = {rename("embed", "transformer.word_embeddings"), rename("layers.*.attn.norm", "transformer.h.*.ln_attn"),
                rename("layers.*.mlp.norm", "transformer.h.*.ln_mlp"),
                head_groups({"layers.*.attn.q", "layers.*.attn.k", "layers.*.attn.v"},
                            "transformer.h.*.self_attention.query_key_value"),
                rename("layers.*.attn.out", "transformer.h.*.self_attention.dense"),
                rename("layers.*.mlp.up", "transformer.h.*.mlp.dense_h_to_4h"),
                rename("layers.*.mlp.down", "transformer.h.*.mlp.dense_4h_to_h"),
                rename("final_norm", "transformer.ln_f")},
};

const Family kFalconOneNorm = {
    .name = "falcon2",
    .hf_architectures = {"FalconForCausalLM"},
    .model_types = {"falcon"},
    .when = {{"new_decoder_architecture", {true}, {}}, {"num_ln_in_parallel_attn", {1}, {}}},
    .based_on = &kFalcon,
    .fixed = {{Field::kResidual, "parallel"}},
    .weights = {rename("layers.*.attn.norm", "transformer.h.*.input_layernorm")},
};

const Family kFalconMultiQuery = {
    .name = "falcon_7b",
    .hf_architectures = {"FalconForCausalLM"},
    .model_types = {"falcon"},
    .when = {{"new_decoder_architecture", {nullptr, false}, {}}, {"parallel_attn", {nullptr, true}, {}}},
    .based_on = &kFalconOneNorm,
    .config = {{Field::kOneKvHead, "multi_query", true}},
};

const Family kFalconSequential = {
    .name = "falcon_rw",
    .hf_architectures = {"FalconForCausalLM"},
    .model_types = {"falcon"},
    .when = {{"new_decoder_architecture", {nullptr, false}, {}}, {"parallel_attn", {false}, {}}},
    .based_on = &kFalconMultiQuery,
    .fixed = {{Field::kResidual, "sequential"}},
    .weights = {rename("layers.*.mlp.norm", "transformer.h.*.post_attention_layernorm")},
};

}  // namespace millrace
