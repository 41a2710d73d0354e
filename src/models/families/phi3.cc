// Phi-3 mini and medium, Phi-3.5-mini, Phi-4-mini: Llama with fused q|k|v and gate|up matrices; longrope switches its
// factors at the original length. Defaults: Phi3Config of transformers 4.46.3.
#include "models/families/chat_formats.h"
#include "models/families/families.h"

namespace millrace {

const Family kPhi3 = {
    .name = "phi3",
    .hf_architectures = {"Phi3ForCausalLM"},
    .model_types = {"phi3"},
    .based_on = &kLlama,
    .config = {{Field::kMaxPositions, "max_position_embeddings", 4096},
               {Field::kRotaryFraction, "partial_rotary_factor", 1.0},
               {Field::kWindow, "sliding_window", nullptr},
               {Field::kNormEps, "rms_norm_eps", 1e-5},
               {Field::kEosTokens, "eos_token_id", 32000}},
    .fixed = {{Field::kQkvBias, false},
              {Field::kOutBias, false},
              {Field::kMlpBias, false},
              {Field::kLongRopeSwitches, true}},
    .harmless_keys = {"embd_pdrop"},
    .refused = {{"attention_bias", {false}, "biases are not built for this family"},
                {"full_attn_mod", {1}, "every layer attends to the whole window"},
                {"interpolate_factor", {1}, "positions are not interpolated beside rope_scaling"},
                {"lm_head_bias", {false}, "biases are not built for this family"},
                {"mlp_bias", {false}, "biases are not built for this family"}},
    .weights = {concat_rows({"layers.*.attn.q", "layers.*.attn.k", "layers.*.attn.v"},
                            "model.layers.*.self_attn.qkv_proj"),
                concat_rows({"layers.*.mlp.gate", "layers.*.mlp.up"}, "model.layers.*.mlp.gate_up_proj")},
    .text = {.stop = {"<|end|>", "<|endoftext|>"}, .chat_formats = {phi3_chat()}},
};

}  // namespace millrace
