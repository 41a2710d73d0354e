// GLM-4 in the layout of transformers (GlmForCausalLM), and GLM-4-0414 (Glm4ForCausalLM), which adds a norm behind each
// branch. Defaults: GlmConfig of transformers 4.46.3 and Glm4Config of 4.51.3.
#include "models/families/chat_formats.h"
#include "models/families/families.h"

namespace millrace {

const Family kGlm = {
    .name = "glm",
    .hf_architectures = {"GlmForCausalLM"},
    .model_types = {"glm"},
    .based_on = &kLlama,
    .config = {{Field::kKvHeads, "num_key_value_heads", 2},
               {Field::kHeadDim, "head_dim", 128},
               {Field::kNormEps, "rms_norm_eps", 1.5625e-7},
               {Field::kMaxPositions, "max_position_embeddings", 131072},
               {Field::kRotaryFraction, "partial_rotary_factor", 0.5},
               {Field::kQkvBias, "attention_bias", true},
               {Field::kBosToken, "bos_token_id", nullptr},
               {Field::kEosTokens, "eos_token_id", Json::array({151329, 151336, 151338})}},
    .fixed = {{Field::kRopeInterleaved, true}, {Field::kOutBias, false}, {Field::kMlpBias, false}},
    .weights = {concat_rows({"layers.*.mlp.gate", "layers.*.mlp.up"}, "model.layers.*.mlp.gate_up_proj")},
    .text = {.stop = {"<|user|>", "<|observation|>", "<|endoftext|>"}, .chat_formats = {glm4_chat()}},
};

const Family kGlm4 = {
    .name = "glm4",
    .hf_architectures = {"Glm4ForCausalLM"},
    .model_types = {"glm4"},
    .based_on = &kGlm,
    .fixed = {{Field::kBranchNorms, true}, {Field::kYarnStatedLength, true}, {Field::kLongRopeSwitches, true}},
    .weights = {rename("layers.*.attn.post_norm", "model.layers.*.post_self_attn_layernorm"),
                rename("layers.*.mlp.post_norm", "model.layers.*.post_mlp_layernorm")},
    .text = {.stop = {"<|user|>", "<|observation|>", "<|endoftext|>"}, .chat_formats = {glm4_chat()}},
};

}  // namespace millrace
