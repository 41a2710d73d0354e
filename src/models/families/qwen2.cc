// Qwen1.5, Qwen2, Qwen2.5: Llama with biases on q, k and v. Defaults: Qwen2Config of transformers 4.46.3.
#include "models/families/chat_formats.h"
#include "models/families/families.h"

namespace millrace {

const Family kQwen2 = {
    .name = "qwen2",
    .hf_architectures = {"Qwen2ForCausalLM"},
    .model_types = {"qwen2"},
    .based_on = &kLlama,
    .config = {{Field::kKvHeads, "num_key_value_heads", 32},
               {Field::kMaxPositions, "max_position_embeddings", 32768},
               {Field::kUseWindow, "use_sliding_window", false},
               {Field::kWindow, "sliding_window", 4096},
               {Field::kFirstWindowLayer, "max_window_layers", 28},
               {Field::kLayerTypes, "layer_types", nullptr},
               {Field::kBosToken, "bos_token_id", nullptr},
               {Field::kEosTokens, "eos_token_id", nullptr}},
    .fixed = {{Field::kQkvBias, true}, {Field::kOutBias, false}, {Field::kMlpBias, false}},
    .text = {.stop = {"<|im_end|>", "<|endoftext|>"}, .chat_formats = {chat_ml("You are a helpful assistant.")}},
};

}  // namespace millrace
