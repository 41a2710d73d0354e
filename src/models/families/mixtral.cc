// Mixtral 8x7B and 8x22B: Mistral with experts in every layer. Defaults: MixtralConfig of transformers 4.46.3.
#include "models/families/chat_formats.h"
#include "models/families/families.h"

namespace millrace {

const Family kMixtral = {
    .name = "mixtral",
    .hf_architectures = {"MixtralForCausalLM"},
    .model_types = {"mixtral"},
    .based_on = &kMistral,
    .config = {{Field::kNormEps, "rms_norm_eps", 1e-5},
               {Field::kWindow, "sliding_window", nullptr},
               {Field::kRopeTheta, "rope_theta", 1e6},
               {Field::kExperts, "num_local_experts", 8},
               {Field::kExpertsPerToken, "num_experts_per_tok", 2},
               {Field::kExpertHidden, "intermediate_size"}},
    .fixed = {{Field::kRouterNormalize, true}},
    .harmless_keys = {"output_router_logits", "router_aux_loss_coef", "router_jitter_noise"},
    .weights = {rename("layers.*.mlp.router", "model.layers.*.block_sparse_moe.gate"),
                rename("layers.*.mlp.experts.*.gate", "model.layers.*.block_sparse_moe.experts.*.w1"),
                rename("layers.*.mlp.experts.*.up", "model.layers.*.block_sparse_moe.experts.*.w3"),
                rename("layers.*.mlp.experts.*.down", "model.layers.*.block_sparse_moe.experts.*.w2")},
    .text = {.chat_formats = mistral_chats()},
};

}  // namespace millrace
