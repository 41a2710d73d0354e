// DeepSeek-V2, V2-Lite and V3: latent attention, experts beside shared experts. Defaults: DeepseekV2Config and
// DeepseekV3Config of the published checkpoints.
#include "models/families/chat_formats.h"
#include "models/families/families.h"

namespace millrace {

const Family kDeepSeekV2 = {
    .name = "deepseek_v2",
    .hf_architectures = {"DeepseekV2ForCausalLM"},
    .model_types = {"deepseek_v2"},
    .based_on = &kLlama,
    .config = {{Field::kQLoraRank, "q_lora_rank", 1536},
               {Field::kKvLoraRank, "kv_lora_rank", 512},
               {Field::kNopeDim, "qk_nope_head_dim", 128},
               {Field::kRopeDim, "qk_rope_head_dim", 64},
               {Field::kVDim, "v_head_dim", 128},
               {Field::kExperts, "n_routed_experts", nullptr},
               {Field::kExpertsPerToken, "num_experts_per_tok", nullptr},
               {Field::kExpertHidden, "moe_intermediate_size", 1407},
               {Field::kSharedExperts, "n_shared_experts", nullptr},
               {Field::kFirstDenseLayers, "first_k_dense_replace", 0},
               {Field::kExpertLayerEvery, "moe_layer_freq", 1},
               {Field::kRouterMethod, "topk_method", "greedy"},
               {Field::kRouterScore, "scoring_func", "softmax"},
               {Field::kRouterGroups, "n_group", nullptr},
               {Field::kRouterGroupsPerToken, "topk_group", nullptr},
               {Field::kRouterNormalize, "norm_topk_prob", false},
               {Field::kRouterScale, "routed_scaling_factor", 1.0},
               {Field::kBosToken, "bos_token_id", 100000},
               {Field::kEosTokens, "eos_token_id", 100001}},
    .fixed = {{Field::kMlpBias, false},
              {Field::kRopeInterleaved, true},
              {Field::kYarnStatedLength, true},
              {Field::kYarnScoreScale, true},
              {Field::kRouterScalesNormalized, false}},
    .harmless_keys = {"aux_loss_alpha", "ep_size", "head_dim", "num_key_value_heads", "seq_aux"},
    .weights = {rename("layers.*.attn.q_a", "model.layers.*.self_attn.q_a_proj"),
                rename("layers.*.attn.q_a_norm", "model.layers.*.self_attn.q_a_layernorm"),
                rename("layers.*.attn.q_b", "model.layers.*.self_attn.q_b_proj"),
                rename("layers.*.attn.kv_a", "model.layers.*.self_attn.kv_a_proj_with_mqa"),
                rename("layers.*.attn.kv_a_norm", "model.layers.*.self_attn.kv_a_layernorm"),
                rename("layers.*.attn.kv_b", "model.layers.*.self_attn.kv_b_proj"),
                rename("layers.*.mlp.router", "model.layers.*.mlp.gate"),
                rename("layers.*.mlp.experts.*.gate", "model.layers.*.mlp.experts.*.gate_proj"),
                rename("layers.*.mlp.experts.*.up", "model.layers.*.mlp.experts.*.up_proj"),
                rename("layers.*.mlp.experts.*.down", "model.layers.*.mlp.experts.*.down_proj"),
                rename("layers.*.mlp.shared.gate", "model.layers.*.mlp.shared_experts.gate_proj"),
                rename("layers.*.mlp.shared.up", "model.layers.*.mlp.shared_experts.up_proj"),
                rename("layers.*.mlp.shared.down", "model.layers.*.mlp.shared_experts.down_proj")},
    .text = {.chat_formats = {deepseek_chat()}},
};

const Family kDeepSeekV3 = {
    .name = "deepseek_v3",
    .hf_architectures = {"DeepseekV3ForCausalLM"},
    .model_types = {"deepseek_v3"},
    .based_on = &kDeepSeekV2,
    .config = {{Field::kRouterMethod, "topk_method", "noaux_tc"},
               {Field::kRouterScore, "scoring_func", "sigmoid"},
               {Field::kRouterNormalize, "norm_topk_prob", true},
               {Field::kRouterScale, "routed_scaling_factor", 2.5},
               {Field::kNextTokenLayers, "num_nextn_predict_layers", 0},
               {Field::kBosToken, "bos_token_id", 0},
               {Field::kEosTokens, "eos_token_id", 1}},
    .fixed = {{Field::kRouterScalesNormalized, true}},
    .weights = {rename("layers.*.mlp.router.correction_bias", "model.layers.*.mlp.gate.e_score_correction_bias")},
    .text = {.chat_formats = {deepseek_v3_chat()}},
};

}  // namespace millrace
