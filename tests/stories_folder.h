// stories260K, a small model that was really trained, as a Hugging Face folder.
#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "weights/safetensors.h"

namespace millrace {

inline const std::string kSharedData = std::string(MILLRACE_SOURCE_DIR) + "/../shared/data";
inline const std::string kStories = kSharedData + "/models/stories260K";

// Cuts float32 tensors off the front of a llama2.c checkpoint.
class StoriesReader {
 public:
  explicit StoriesReader(std::string bytes) : bytes_(std::move(bytes)) {}
  int32_t integer() {
    int32_t value;
    std::memcpy(&value, bytes_.data() + at_, 4);
    at_ += 4;
    return value;
  }
  Tensor tensor(const Shape& shape) {
    Tensor out = Tensor::empty(DType::kF32, shape);
    std::memcpy(out.raw(), bytes_.data() + at_, out.bytes());
    at_ += out.bytes();
    return out;
  }

 private:
  std::string bytes_;
  size_t at_ = 0;
};

// Rows of each head from adjacent pairs (2i, 2i + 1) to halves (i, i + D/2).
inline Tensor halves_from_pairs(const Tensor& pairs, int64_t head_dim) {
  Tensor out = Tensor::empty(DType::kF32, pairs.shape());
  const int64_t width = pairs.size(1);
  for (int64_t row = 0; row < pairs.size(0); ++row) {
    const int64_t head = row / head_dim, i = row % head_dim;
    const int64_t to = head * head_dim + i / 2 + (i % 2) * head_dim / 2;
    std::memcpy(out.data<float>() + to * width, pairs.data<float>() + row * width, width * 4);
  }
  return out;
}

// The llama2.c legacy layout: seven integers, then tensors layer-major, kind after kind.
inline void convert_stories(const std::string& to) {
  StoriesReader in(*read_file(kStories + "/stories260K.bin"));
  const int64_t C = in.integer(), F = in.integer(), L = in.integer(), H = in.integer(), G = in.integer(),
                V = in.integer(), length = in.integer(), D = C / H;
  std::vector<NamedTensor> tensors;
  const auto each_layer = [&](const std::string& name, const Shape& shape, int64_t rotated_head_dim) {
    for (int64_t i = 0; i < L; ++i) {
      Tensor tensor = in.tensor(shape);
      if (rotated_head_dim) tensor = halves_from_pairs(tensor, rotated_head_dim);
      tensors.push_back({fmt::format("model.layers.{}.{}.weight", i, name), {tensor}});
    }
  };
  tensors.push_back({"model.embed_tokens.weight", {in.tensor({V, C})}});
  each_layer("input_layernorm", {C}, 0);
  each_layer("self_attn.q_proj", {C, C}, D);
  each_layer("self_attn.k_proj", {G * D, C}, D);
  each_layer("self_attn.v_proj", {G * D, C}, 0);
  each_layer("self_attn.o_proj", {C, C}, 0);
  each_layer("post_attention_layernorm", {C}, 0);
  each_layer("mlp.gate_proj", {F, C}, 0);
  each_layer("mlp.down_proj", {C, F}, 0);
  each_layer("mlp.up_proj", {F, C}, 0);
  tensors.push_back({"model.norm.weight", {in.tensor({C})}});
  ASSERT_TRUE(write_safetensors(to + "/model.safetensors", tensors).ok());
  const Json config = {{"architectures", {"LlamaForCausalLM"}},
                       {"model_type", "llama"},
                       {"hidden_size", C},
                       {"intermediate_size", F},
                       {"num_hidden_layers", L},
                       {"num_attention_heads", H},
                       {"num_key_value_heads", G},
                       {"vocab_size", V},
                       {"max_position_embeddings", length},
                       {"rms_norm_eps", 1e-5},
                       {"rope_theta", 10000.0},
                       {"hidden_act", "silu"},
                       {"tie_word_embeddings", true},
                       {"torch_dtype", "float32"},
                       {"bos_token_id", 1},
                       {"eos_token_id", 2}};
  ASSERT_TRUE(write_file(to + "/config.json", dump_json(config)).ok());
  ASSERT_TRUE(write_file(to + "/tokenizer.model", *read_file(kStories + "/tok512.model")).ok());
}

}  // namespace millrace
