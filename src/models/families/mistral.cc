// Mistral 7B and its relatives: Llama without biases, with a sliding window in every layer where one is stated.
// Defaults: MistralConfig of transformers 4.46.3.
#include "models/families/chat_formats.h"
#include "models/families/families.h"

namespace millrace {

const Family kMistral = {
    .name = "mistral",
    .hf_architectures = {"MistralForCausalLM"},
    .model_types = {"mistral"},
    .based_on = &kLlama,
    .config = {{Field::kKvHeads, "num_key_value_heads", 8},
               {Field::kMaxPositions, "max_position_embeddings", 131072},
               {Field::kWindow, "sliding_window", 4096},
               {Field::kLayerTypes, "layer_types", nullptr}},
    .fixed = {{Field::kQkvBias, false}, {Field::kOutBias, false}, {Field::kMlpBias, false}},
    .text = {.chat_formats = mistral_chats()},
};

}  // namespace millrace
