// Gemma: Llama with scaled embeddings, norms of 1 + weight and a gated tanh-GELU. Gemma 2: also norms behind each
// branch, soft caps, and a window in every other layer. Defaults: GemmaConfig and Gemma2Config of transformers 4.46.3.
#include "models/families/chat_formats.h"
#include "models/families/families.h"

namespace millrace {

const Family kGemma = {
    .name = "gemma",
    .hf_architectures = {"GemmaForCausalLM"},
    .model_types = {"gemma"},
    .based_on = &kLlama,
    .config = {{Field::kKvHeads, "num_key_value_heads", 16},
               {Field::kHeadDim, "head_dim", 256},
               {Field::kActivation, "hidden_activation", "gelu_pytorch_tanh", true},
               {Field::kMaxPositions, "max_position_embeddings", 8192},
               {Field::kTieEmbeddings, "tie_word_embeddings", true},
               {Field::kBosToken, "bos_token_id", 2},
               {Field::kEosTokens, "eos_token_id", 1}},
    .fixed = {{Field::kMlpBias, false}, {Field::kNormPlusOne, true}, {Field::kEmbeddingScale, "sqrt(hidden_size)"}},
    .harmless_keys = {"hidden_act"},
    .text = {.stop = {"<end_of_turn>"}, .chat_formats = {gemma_chat()}},
};

const Family kGemma2 = {
    .name = "gemma2",
    .hf_architectures = {"Gemma2ForCausalLM"},
    .model_types = {"gemma2"},
    .based_on = &kGemma,
    .config = {{Field::kQueryPreAttnScalar, "query_pre_attn_scalar", 224},
               {Field::kAttentionSoftCap, "attn_logit_softcapping", 50.0},
               {Field::kFinalSoftCap, "final_logit_softcapping", 30.0},
               {Field::kWindow, "sliding_window", 4096},
               {Field::kLayerTypes, "layer_types", nullptr}},
    .fixed = {{Field::kWindowEvery, 2}, {Field::kBranchNorms, true}},
    .harmless_keys = {"cache_implementation", "sliding_window_size"},
    .weights = {rename("layers.*.attn.post_norm", "model.layers.*.post_attention_layernorm"),
                rename("layers.*.mlp.norm", "model.layers.*.pre_feedforward_layernorm"),
                rename("layers.*.mlp.post_norm", "model.layers.*.post_feedforward_layernorm")},
    .text = {.stop = {"<end_of_turn>"}, .chat_formats = {gemma_chat()}},
};

}  // namespace millrace
