// Qwen1.5-MoE-A2.7B and Qwen2-57B-A14B: Qwen2 with experts and a gated shared expert. Defaults: Qwen2MoeConfig of
// transformers 4.46.3.
#include "models/families/chat_formats.h"
#include "models/families/families.h"

namespace millrace {

const Family kQwen2Moe = {
    .name = "qwen2_moe",
    .hf_architectures = {"Qwen2MoeForCausalLM"},
    .model_types = {"qwen2_moe"},
    .based_on = &kQwen2,
    .config = {{Field::kKvHeads, "num_key_value_heads", 16},
               {Field::kQkvBias, "qkv_bias", true},
               {Field::kExperts, "num_experts", 60},
               {Field::kExpertsPerToken, "num_experts_per_tok", 4},
               {Field::kExpertHidden, "moe_intermediate_size", 1408},
               {Field::kSharedHidden, "shared_expert_intermediate_size", 5632},
               {Field::kSparseStep, "decoder_sparse_step", 1},
               {Field::kDenseLayers, "mlp_only_layers", nullptr},
               {Field::kRouterNormalize, "norm_topk_prob", false}},
    .fixed = {{Field::kSharedGate, true}},
    .harmless_keys = {"output_router_logits", "router_aux_loss_coef"},
    .weights = {rename("layers.*.mlp.router", "model.layers.*.mlp.gate"),
                rename("layers.*.mlp.experts.*.gate", "model.layers.*.mlp.experts.*.gate_proj"),
                rename("layers.*.mlp.experts.*.up", "model.layers.*.mlp.experts.*.up_proj"),
                rename("layers.*.mlp.experts.*.down", "model.layers.*.mlp.experts.*.down_proj"),
                rename("layers.*.mlp.shared.gate", "model.layers.*.mlp.shared_expert.gate_proj"),
                rename("layers.*.mlp.shared.up", "model.layers.*.mlp.shared_expert.up_proj"),
                rename("layers.*.mlp.shared.down", "model.layers.*.mlp.shared_expert.down_proj"),
                rename("layers.*.mlp.shared_gate", "model.layers.*.mlp.shared_expert_gate")},
    .text = {.stop = {"<|im_end|>", "<|endoftext|>"}, .chat_formats = {chat_ml("You are a helpful assistant.")}},
};

}  // namespace millrace
