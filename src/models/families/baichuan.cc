// Baichuan 2, 7B (rotary) and 13B (linear biases), published with code of its own. One class name stands for both: only
// the 7B states max_position_embeddings. The first generation, known by its 64,000 ids, has another head.
#include "models/families/chat_formats.h"
#include "models/families/families.h"

namespace millrace {

const Family kBaichuan = {
    .name = "baichuan",
    .hf_architectures = {"BaichuanForCausalLM", "BaiChuanForCausalLM"},
    .model_types = {"baichuan"},
    .when = {{"max_position_embeddings", {}, {nullptr}}, {"vocab_size", {}, {64000}}},
    .based_on = &kLlama,
    .config = {{Field::kMaxPositions, "max_position_embeddings", 4096}},
    .fixed = {{Field::kKvHeads, nullptr},
              {Field::kQkvBias, false},
              {Field::kOutBias, false},
              {Field::kMlpBias, false},
              {Field::kNormalizedHead, true}},
    .harmless_keys = {"model_max_length", "z_loss_weight"},
    .weights = {concat_rows({"layers.*.attn.q", "layers.*.attn.k", "layers.*.attn.v"},
                            "model.layers.*.self_attn.W_pack")},
    .text = {.tokenizer_class = "BaichuanTokenizer", .chat_formats = {baichuan2_chat()}},
};

const Family kBaichuanAlibi = {
    .name = "baichuan_13b",
    .hf_architectures = {"BaichuanForCausalLM"},
    .model_types = {"baichuan"},
    .when = {{"max_position_embeddings", {nullptr}, {}}, {"vocab_size", {}, {64000}}},
    .based_on = &kBaichuan,
    .config = {{Field::kMaxPositions, "model_max_length", 4096}},
    .fixed = {{Field::kAlibi, true}},
    .text = {.tokenizer_class = "BaichuanTokenizer", .chat_formats = {baichuan2_chat()}},
};

}  // namespace millrace
