// Qwen3: Qwen2 without the biases, with a norm on each head of q and k. Qwen3-MoE: the same with experts. Defaults:
// Qwen3Config and Qwen3MoeConfig of transformers 4.51.3, whose yarn and longrope go by the original length.
#include "models/families/chat_formats.h"
#include "models/families/families.h"

namespace millrace {

const Family kQwen3 = {
    .name = "qwen3",
    .hf_architectures = {"Qwen3ForCausalLM"},
    .model_types = {"qwen3"},
    .based_on = &kQwen2,
    .config = {{Field::kHeadDim, "head_dim", 128},
               {Field::kQkvBias, "attention_bias", false},
               {Field::kOutBias, "attention_bias", false}},
    .fixed = {{Field::kQkNorm, true}, {Field::kYarnStatedLength, true}, {Field::kLongRopeSwitches, true}},
    .weights = {rename("layers.*.attn.q_norm", "model.layers.*.self_attn.q_norm"),
                rename("layers.*.attn.k_norm", "model.layers.*.self_attn.k_norm")},
    .text = {.stop = {"<|im_end|>", "<|endoftext|>"}, .chat_formats = {chat_ml()}},
};

const Family kQwen3Moe = {
    .name = "qwen3_moe",
    .hf_architectures = {"Qwen3MoeForCausalLM"},
    .model_types = {"qwen3_moe"},
    .based_on = &kQwen3,
    .config = {{Field::kKvHeads, "num_key_value_heads", 4},
               {Field::kHeadDim, "head_dim", nullptr},
               {Field::kExperts, "num_experts", 128},
               {Field::kExpertsPerToken, "num_experts_per_tok", 8},
               {Field::kExpertHidden, "moe_intermediate_size", 768},
               {Field::kSparseStep, "decoder_sparse_step", 1},
               {Field::kDenseLayers, "mlp_only_layers", nullptr},
               {Field::kRouterNormalize, "norm_topk_prob", false}},
    .harmless_keys = {"output_router_logits", "router_aux_loss_coef"},
    .weights = {rename("layers.*.mlp.router", "model.layers.*.mlp.gate"),
                rename("layers.*.mlp.experts.*.gate", "model.layers.*.mlp.experts.*.gate_proj"),
                rename("layers.*.mlp.experts.*.up", "model.layers.*.mlp.experts.*.up_proj"),
                rename("layers.*.mlp.experts.*.down", "model.layers.*.mlp.experts.*.down_proj")},
    .text = {.stop = {"<|im_end|>", "<|endoftext|>"}, .chat_formats = {chat_ml()}},
};

}  // namespace millrace
