// GPT-2 and what is published as GPT2LMHeadModel: learned positions, layer norms, matrices stored [in, out]. Defaults:
// GPT2Config of transformers 4.46.3.
#include "models/families/families.h"

namespace millrace {

const Family kGpt2 = {
    .name = "gpt2",
    .hf_architectures = {"GPT2LMHeadModel"},
    .model_types = {"gpt2"},
    .config = {{Field::kVocabSize, "vocab_size", 50257},
               {Field::kHiddenSize, "n_embd", 768},
               {Field::kLayers, "n_layer", 12},
               {Field::kHeads, "n_head", 12},
               {Field::kMlpHidden, "n_inner", nullptr},
               {Field::kActivation, "activation_function", "gelu_new"},
               {Field::kNormEps, "layer_norm_epsilon", 1e-5},
               {Field::kMaxPositions, "n_positions", 1024},
               {Field::kTieEmbeddings, "tie_word_embeddings", true},
               {Field::kDType, "torch_dtype", nullptr},
               {Field::kDType, "dtype", nullptr},
               {Field::kBosToken, "bos_token_id", 50256},
               {Field::kEosTokens, "eos_token_id", 50256}},
    .fixed = {{Field::kNormKind, "layer"},
              {Field::kNormBias, true},
              {Field::kLearnedPositions, true},
              {Field::kQkvBias, true},
              {Field::kOutBias, true},
              {Field::kMlpBias, true},
              {Field::kMlpGated, false},
              {Field::kMlpHiddenFactor, 4}},
    .harmless_keys = {"attn_pdrop", "embd_pdrop", "n_ctx", "output_past", "reorder_and_upcast_attn",
                      "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type",
                      "summary_use_proj"},
    .refused = {{"scale_attn_weights", {true}, "scores are always scaled"},
                {"scale_attn_by_inverse_layer_idx", {false}, "scores are not scaled by the layer's number"}},
    .weights = {rename("embed", "transformer.wte"), rename("pos_embed", "transformer.wpe"),
                rename("layers.*.attn.norm", "transformer.h.*.ln_1"),
                concat_columns({"layers.*.attn.q", "layers.*.attn.k", "layers.*.attn.v"},
                               "transformer.h.*.attn.c_attn"),
                concat_columns({"layers.*.attn.out"}, "transformer.h.*.attn.c_proj"),
                rename("layers.*.mlp.norm", "transformer.h.*.ln_2"),
                concat_columns({"layers.*.mlp.up"}, "transformer.h.*.mlp.c_fc"),
                concat_columns({"layers.*.mlp.down"}, "transformer.h.*.mlp.c_proj"),
                rename("final_norm", "transformer.ln_f"), rename("lm_head", "lm_head")},
    .optional_prefix = "transformer.",
    .harmless_tensors = {"*.attn.bias", "*.attn.masked_bias"},
};

}  // namespace millrace
