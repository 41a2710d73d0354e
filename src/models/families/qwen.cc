// Qwen 1 (Qwen-1.8B, 7B, 14B, 72B and their chat models), published with code of its own. Defaults: QWenConfig of the
// published checkpoints.
#include "models/families/chat_formats.h"
#include "models/families/families.h"

namespace millrace {

const Family kQwen = {
    .name = "qwen",
    .hf_architectures = {"QWenLMHeadModel"},
    .model_types = {"qwen"},
    .based_on = &kLlama,
    .config = {{Field::kHeadDim, "kv_channels", 128},
               {Field::kNormEps, "layer_norm_epsilon", 1e-6},
               {Field::kMaxPositions, "max_position_embeddings", 8192},
               {Field::kTrainedLength, "seq_length", 8192},
               {Field::kDynamicNtk, "use_dynamic_ntk", true},
               {Field::kLognAttention, "use_logn_attn", true},
               {Field::kRopeTheta, "rotary_emb_base", 10000.0},
               {Field::kRotaryFraction, "rotary_pct", 1.0},
               {Field::kBosToken, "bos_token_id", nullptr},
               {Field::kEosTokens, "eos_token_id", nullptr}},
    .fixed = {{Field::kKvHeads, nullptr},
              {Field::kActivation, "silu"},
              {Field::kMlpHiddenDivisor, 2},
              {Field::kQkvBias, true},
              {Field::kOutBias, false},
              {Field::kMlpBias, false}},
    .harmless_keys = {"attn_dropout_prob", "bf16", "emb_dropout_prob", "fp16", "fp32", "onnx_safe", "softmax_in_fp32",
                      "tokenizer_type", "use_cache_kernel", "use_flash_attn"},
    .refused = {{"no_bias", {true}, "biases besides those of q, k and v are not built"},
                {"scale_attn_weights", {true}, "scores are always scaled"},
                {"use_cache_quantization", {false}, "the quantised cache of this class is not built"},
                {"visual", {}, "the vision part is not built"}},
    .weights = {rename("embed", "transformer.wte"), rename("layers.*.attn.norm", "transformer.h.*.ln_1"),
                concat_rows({"layers.*.attn.q", "layers.*.attn.k", "layers.*.attn.v"}, "transformer.h.*.attn.c_attn"),
                rename("layers.*.attn.out", "transformer.h.*.attn.c_proj"),
                rename("layers.*.mlp.norm", "transformer.h.*.ln_2"),
                rename("layers.*.mlp.up", "transformer.h.*.mlp.w1"),
                rename("layers.*.mlp.gate", "transformer.h.*.mlp.w2"),
                rename("layers.*.mlp.down", "transformer.h.*.mlp.c_proj"), rename("final_norm", "transformer.ln_f")},
    .text = {.stop = {"<|im_end|>", "<|endoftext|>"},
             .tokenizer_class = "QWenTokenizer",
             .chat_formats = {chat_ml("You are a helpful assistant.")}},
};

}  // namespace millrace
