// InternLM2 and InternLM2.5: Llama with q, k and v of each key/value head in one matrix. Defaults: InternLM2Config of
// the published checkpoints.
#include "models/families/chat_formats.h"
#include "models/families/families.h"

namespace millrace {

const Family kInternLm2 = {
    .name = "internlm2",
    .hf_architectures = {"InternLM2ForCausalLM"},
    .model_types = {"internlm2"},
    .based_on = &kLlama,
    .config = {{Field::kQkvBias, "bias", true}, {Field::kOutBias, "bias", true}},
    .fixed = {{Field::kHeadDim, nullptr}, {Field::kMlpBias, false}},
    .weights = {rename("embed", "model.tok_embeddings"), rename("layers.*.attn.norm", "model.layers.*.attention_norm"),
                head_groups({"layers.*.attn.q", "layers.*.attn.k", "layers.*.attn.v"}, "model.layers.*.attention.wqkv"),
                rename("layers.*.attn.out", "model.layers.*.attention.wo"),
                rename("layers.*.mlp.norm", "model.layers.*.ffn_norm"),
                rename("layers.*.mlp.gate", "model.layers.*.feed_forward.w1"),
                rename("layers.*.mlp.up", "model.layers.*.feed_forward.w3"),
                rename("layers.*.mlp.down", "model.layers.*.feed_forward.w2"), rename("lm_head", "output")},
    .text = {.stop = {"<|im_end|>"}, .chat_formats = internlm2_chats()},
};

}  // namespace millrace
