// Llama 1, 2, 3, 3.1, 3.2, and what is published as LlamaForCausalLM: Yi, DeepSeek-LLM, TinyLlama, SmolLM2 ...
// Defaults: LlamaConfig of transformers 4.46.3.
#include "models/families/chat_formats.h"
#include "models/families/families.h"

namespace millrace {

const Family kLlama = {
    .name = "llama",
    .hf_architectures = {"LlamaForCausalLM", "LLaMAForCausalLM"},
    .model_types = {"llama"},
    .config = {{Field::kVocabSize, "vocab_size"},
               {Field::kHiddenSize, "hidden_size"},
               {Field::kLayers, "num_hidden_layers"},
               {Field::kHeads, "num_attention_heads"},
               {Field::kKvHeads, "num_key_value_heads", nullptr},
               {Field::kHeadDim, "head_dim", nullptr},
               {Field::kMlpHidden, "intermediate_size"},
               {Field::kActivation, "hidden_act", "silu"},
               {Field::kNormEps, "rms_norm_eps", 1e-6},
               {Field::kMaxPositions, "max_position_embeddings", 2048},
               {Field::kRopeTheta, "rope_theta", 10000.0},
               {Field::kTieEmbeddings, "tie_word_embeddings", false},
               {Field::kQkvBias, "attention_bias", false},
               {Field::kOutBias, "attention_bias", false},
               {Field::kMlpBias, "mlp_bias", false},
               {Field::kDType, "torch_dtype", nullptr},
               {Field::kDType, "dtype", nullptr},
               {Field::kBosToken, "bos_token_id", 1},
               {Field::kEosTokens, "eos_token_id", 2}},
    .harmless_keys = {"max_sequence_length"},
    .weights = {rename("embed", "model.embed_tokens"), rename("layers.*.attn.norm", "model.layers.*.input_layernorm"),
                rename("layers.*.attn.q", "model.layers.*.self_attn.q_proj"),
                rename("layers.*.attn.k", "model.layers.*.self_attn.k_proj"),
                rename("layers.*.attn.v", "model.layers.*.self_attn.v_proj"),
                rename("layers.*.attn.out", "model.layers.*.self_attn.o_proj"),
                rename("layers.*.mlp.norm", "model.layers.*.post_attention_layernorm"),
                rename("layers.*.mlp.gate", "model.layers.*.mlp.gate_proj"),
                rename("layers.*.mlp.up", "model.layers.*.mlp.up_proj"),
                rename("layers.*.mlp.down", "model.layers.*.mlp.down_proj"), rename("final_norm", "model.norm"),
                rename("lm_head", "lm_head")},
    .harmless_tensors = {"*.rotary_emb.inv_freq", "*.rotary_emb.cos_cached", "*.rotary_emb.sin_cached"},
    .text = {.chat_formats = {deepseek_v3_chat(), llama3_chat(), deepseek_chat(), chat_ml(), llama2_chat()}},
};

}  // namespace millrace
