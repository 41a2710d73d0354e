// ChatGLM2-6B, ChatGLM3-6B and GLM-4-9B as published with code of its own, which never ties the embeddings. Without
// multi-query attention, q, k and v of each head stand together. Defaults: ChatGLMConfig of those checkpoints.
#include "models/families/chat_formats.h"
#include "models/families/families.h"

namespace millrace {

const Family kChatGlm = {
    .name = "chatglm",
    .hf_architectures = {"ChatGLMModel", "ChatGLMForConditionalGeneration"},
    .model_types = {"chatglm"},
    .when = {{"multi_query_attention", {true}, {}}},
    .based_on = &kLlama,
    .config = {{Field::kVocabSize, "padded_vocab_size"},
               {Field::kLayers, "num_layers"},
               {Field::kLayers, "num_hidden_layers"},
               {Field::kKvHeads, "multi_query_group_num", 1},
               {Field::kMultiQuery, "multi_query_attention", false},
               {Field::kHeadDim, "kv_channels", 128},
               {Field::kMlpHidden, "ffn_hidden_size"},
               {Field::kNormEps, "layernorm_epsilon", 1e-5},
               {Field::kMaxPositions, "seq_length", 2048},
               {Field::kRopeThetaFactor, "rope_ratio", 1},
               {Field::kQkvBias, "add_qkv_bias", false},
               {Field::kBosToken, "bos_token_id", nullptr},
               {Field::kEosTokens, "eos_token_id", nullptr}},
    .fixed = {{Field::kActivation, "silu"},
              {Field::kTieEmbeddings, false},
              {Field::kRopeTheta, 10000},
              {Field::kRotaryFraction, 0.5},
              {Field::kRopeInterleaved, true},
              {Field::kOutBias, false},
              {Field::kMlpBias, false}},
    .harmless_keys = {"apply_query_key_layer_scaling", "attention_softmax_in_fp32", "bias_dropout_fusion",
                      "boi_token_id", "classifier_dropout", "eoi_token_id", "fp32_residual_connection", "original_rope",
                      "prefix_projection", "tie_word_embeddings", "vocab_size"},
    .refused = {{"add_bias_linear", {false}, "biases besides those of q, k and v are not built"},
                {"apply_residual_connection_post_layernorm", {false}, "residuals start before the norm"},
                {"post_layer_norm", {true}, "the final norm is always there"},
                {"pre_seq_len", {}, "tuned prefixes are not built"},
                {"quantization_bit", {0}, "checkpoints quantised by this class are not supported"},
                {"rmsnorm", {true}, "layer norms are not built for this family"}},
    .weights = {rename("embed", "transformer.embedding.word_embeddings"),
                rename("layers.*.attn.norm", "transformer.encoder.layers.*.input_layernorm"),
                concat_rows({"layers.*.attn.q", "layers.*.attn.k", "layers.*.attn.v"},
                            "transformer.encoder.layers.*.self_attention.query_key_value"),
                rename("layers.*.attn.out", "transformer.encoder.layers.*.self_attention.dense"),
                rename("layers.*.mlp.norm", "transformer.encoder.layers.*.post_attention_layernorm"),
                concat_rows({"layers.*.mlp.gate", "layers.*.mlp.up"}, "transformer.encoder.layers.*.mlp.dense_h_to_4h"),
                rename("layers.*.mlp.down", "transformer.encoder.layers.*.mlp.dense_4h_to_h"),
                rename("final_norm", "transformer.encoder.final_layernorm"),
                rename("lm_head", "transformer.output_layer")},
    .harmless_tensors = {"transformer.rotary_pos_emb.inv_freq"},
    .text = {.stop = {"<|user|>", "<|observation|>", "<|endoftext|>"},
             .tokenizer_class = "ChatGLMTokenizer",
             .chat_formats = {glm4_chat(), chatglm3_chat(), chatglm2_chat()}},
};

const Family kChatGlmMultiHead = {
    .name = "chatglm_multi_head",
    .hf_architectures = {"ChatGLMModel", "ChatGLMForConditionalGeneration"},
    .model_types = {"chatglm"},
    .when = {{"multi_query_attention", {nullptr, false}, {}}},
    .based_on = &kChatGlm,
    .weights = {head_groups({"layers.*.attn.q", "layers.*.attn.k", "layers.*.attn.v"},
                            "transformer.encoder.layers.*.self_attention.query_key_value")},
    .text = {.stop = {"<|user|>", "<|observation|>", "<|endoftext|>"},
             .tokenizer_class = "ChatGLMTokenizer",
             .chat_formats = {glm4_chat(), chatglm3_chat(), chatglm2_chat()}},
};

}  // namespace millrace
