#include "models/families/presets.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "models/families/families.h"

namespace millrace {
namespace {

struct Preset {
  const Family* family;  // null: every family
  const char* size;
  const char* config;  // keys of config.json beside the family's defaults
};

// Public sizes: the config.json that the models' authors published.
constexpr Preset kPresets[] = {
    {nullptr, "tiny",
     R"({"vocab_size": 320, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512,
         "tie_word_embeddings": true, "bos_token_id": 256, "eos_token_id": 257})"},
    {nullptr, "demo",
     R"({"vocab_size": 320, "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4,
         "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 2048,
         "tie_word_embeddings": true, "bos_token_id": 256, "eos_token_id": 257})"},
    {&kQwen2, "qwen2.5-0.5b",
     R"({"vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
         "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768, "rope_theta": 1000000.0,
         "tie_word_embeddings": true, "sliding_window": 32768, "max_window_layers": 24, "bos_token_id": 151643,
         "eos_token_id": 151643})"},
    {&kQwen2, "qwen2.5-1.5b",
     R"({"vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
         "num_attention_heads": 12, "num_key_value_heads": 2, "max_position_embeddings": 131072,
         "rope_theta": 1000000.0, "tie_word_embeddings": true, "sliding_window": 131072, "max_window_layers": 28,
         "bos_token_id": 151643, "eos_token_id": 151643})"},
    {&kQwen2, "qwen2.5-7b",
     R"({"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
         "num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 131072,
         "rope_theta": 1000000.0, "sliding_window": 131072, "max_window_layers": 28, "bos_token_id": 151643,
         "eos_token_id": 151643})"},
    {&kLlama, "llama-3.2-1b",
     R"({"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
         "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131072,
         "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": true, "bos_token_id": 128000,
         "eos_token_id": 128001,
         "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                          "original_max_position_embeddings": 8192, "rope_type": "llama3"}})"},
    {&kLlama, "llama-3.1-8b",
     R"({"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072,
         "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "bos_token_id": 128000, "eos_token_id": 128001,
         "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                          "original_max_position_embeddings": 8192, "rope_type": "llama3"}})"},
    {&kLlama, "llama-2-7b",
     R"({"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
         "rms_norm_eps": 1e-05})"},
    {&kMistral, "mistral-7b",
     R"({"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 32768,
         "rms_norm_eps": 1e-05, "sliding_window": 4096})"},
};

// What a family's small models state beside the sizes of every family, in the family's own keys.
struct SmallExtras {
  const Family* family;
  const char* config;
};
constexpr SmallExtras kSmallExtras[] = {
    {&kBaichuan, R"({"tie_word_embeddings": false})"},
    {&kBaichuanAlibi, R"({"tie_word_embeddings": false})"},
    {&kChatGlm, R"({"multi_query_attention": true, "add_qkv_bias": true})"},
    {&kDeepSeekV2,
     R"({"q_lora_rank": 48, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16,
         "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
         "first_k_dense_replace": 1})"},
    {&kDeepSeekV3,
     R"({"q_lora_rank": 48, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16,
         "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
         "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2})"},
    {&kFalcon, R"({"new_decoder_architecture": true})"},
    {&kFalconOneNorm, R"({"new_decoder_architecture": true, "num_ln_in_parallel_attn": 1})"},
    {&kFalconSequential, R"({"parallel_attn": false})"},
    {&kMixtral, R"({"num_local_experts": 4})"},
    {&kQwen2Moe,
     R"({"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
         "shared_expert_intermediate_size": 128})"},
    {&kQwen3Moe, R"({"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64})"},
};

bool fits(const Preset& preset, const Family& family, std::string_view size) {
  return preset.size == size && (preset.family == nullptr || preset.family == &family);
}

const ConfigRow* row_of(const Family& family, Field field) {
  for (const ConfigRow* row : config_rows(family))
    if (row->field == field) return row;
  return nullptr;
}

// Llama's keys in the family's own spelling; what the family does not state is left out.
Json in_keys_of(const Family& family, const Json& llama) {
  Json out = Json::object();
  for (const ConfigRow* known : config_rows(kLlama)) {
    const ConfigRow* row = row_of(family, known->field);
    if (row && llama.contains(known->key)) out[row->key] = llama[known->key];
  }
  return out;
}

// The preset's keys over the family's defaults, as a published config.json states them all.
Json complete_config(const Family& family, const Preset& preset) {
  Json config = {{"architectures", {family.hf_architectures.front()}}, {"model_type", family.model_types.front()}};
  for (const ConfigRow* row : config_rows(family))
    if (row->fallback && !row->fallback->is_null()) config[row->key] = *row->fallback;
  const Json sizes = Json::parse(preset.config);
  config.update(preset.family ? sizes : in_keys_of(family, sizes));
  for (const SmallExtras& extras : kSmallExtras)
    if (!preset.family && extras.family == &family) config.update(Json::parse(extras.config));
  config["initializer_range"] = 0.02;
  config["use_cache"] = true;
  return config;
}

}  // namespace

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const Preset& preset : kPresets)
    for (const Family* family : all_families())
      if (fits(preset, *family, preset.size)) names.push_back(fmt::format("{}/{}", family->name, preset.size));
  std::ranges::sort(names);
  return names;
}

Result<Json> preset_config(std::string_view family_name, std::string_view size) {
  const Family* wanted = find_family(family_name);
  if (!wanted && !family_name.empty()) {
    std::vector<std::string> names;
    for (const Family* family : all_families()) names.push_back(family->name);
    return invalid_argument("no family '{}'; there are {}{}", family_name, fmt::join(names, ", "),
                            did_you_mean(family_name, names));
  }
  for (const Preset& preset : kPresets)
    for (const Family* family : all_families())
      if ((!wanted || family == wanted) && fits(preset, *family, size)) return complete_config(*family, preset);
  const std::string full = fmt::format("{}/{}", family_name.empty() ? "llama" : family_name, size);
  return invalid_argument("no size '{}' of family '{}'; there are {}{}", size, family_name,
                          fmt::join(preset_names(), ", "), did_you_mean(full, preset_names()));
}

}  // namespace millrace
