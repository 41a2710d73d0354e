#include "models/families/well_known.h"

#include <algorithm>
#include <cctype>

#include "base/check.h"

namespace millrace {
namespace {

// `like` names an earlier row whose keys hold too, except for those given here.
struct Row {
  const char* name;
  double billions, active_billions;
  const char* like;
  const char* config;
};

constexpr Row kRows[] = {
    {"huggyllama/llama-7b", 6.74, 0, nullptr,
     R"({"architectures": ["LlamaForCausalLM"], "vocab_size": 32000, "hidden_size": 4096,
         "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
         "num_key_value_heads": 32, "max_position_embeddings": 2048, "rms_norm_eps": 1e-06})"},
    {"huggyllama/llama-13b", 13.0, 0, "huggyllama/llama-7b",
     R"({"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40,
         "num_key_value_heads": 40})"},
    {"huggyllama/llama-30b", 32.5, 0, "huggyllama/llama-7b",
     R"({"hidden_size": 6656, "intermediate_size": 17920, "num_hidden_layers": 60, "num_attention_heads": 52,
         "num_key_value_heads": 52})"},
    {"huggyllama/llama-65b", 65.2, 0, "huggyllama/llama-7b",
     R"({"hidden_size": 8192, "intermediate_size": 22016, "num_hidden_layers": 80, "num_attention_heads": 64,
         "num_key_value_heads": 64, "rms_norm_eps": 1e-05})"},
    {"meta-llama/Llama-2-7b-hf", 6.74, 0, "huggyllama/llama-7b",
     R"({"max_position_embeddings": 4096, "rms_norm_eps": 1e-05})"},
    {"meta-llama/Llama-2-13b-hf", 13.0, 0, "huggyllama/llama-13b",
     R"({"max_position_embeddings": 4096, "rms_norm_eps": 1e-05})"},
    {"meta-llama/Llama-2-70b-hf", 69.0, 0, "huggyllama/llama-65b",
     R"({"intermediate_size": 28672, "num_key_value_heads": 8, "max_position_embeddings": 4096})"},
    {"lmsys/vicuna-7b-v1.5", 6.74, 0, "meta-llama/Llama-2-7b-hf", R"({})"},
    {"lmsys/vicuna-13b-v1.5", 13.0, 0, "meta-llama/Llama-2-13b-hf", R"({})"},
    {"codellama/CodeLlama-7b-hf", 6.74, 0, "meta-llama/Llama-2-7b-hf",
     R"({"vocab_size": 32016, "max_position_embeddings": 16384, "rope_theta": 1000000})"},
    {"codellama/CodeLlama-13b-hf", 13.0, 0, "meta-llama/Llama-2-13b-hf",
     R"({"vocab_size": 32016, "max_position_embeddings": 16384, "rope_theta": 1000000})"},
    {"codellama/CodeLlama-34b-hf", 33.7, 0, "codellama/CodeLlama-7b-hf",
     R"({"vocab_size": 32000, "hidden_size": 8192, "intermediate_size": 22016, "num_hidden_layers": 48,
         "num_attention_heads": 64, "num_key_value_heads": 8})"},
    {"codellama/CodeLlama-70b-hf", 69.0, 0, "meta-llama/Llama-2-70b-hf",
     R"({"vocab_size": 32016, "max_position_embeddings": 16384, "rope_theta": 1000000})"},
    {"TinyLlama/TinyLlama-1.1B-Chat-v1.0", 1.1, 0, nullptr,
     R"({"architectures": ["LlamaForCausalLM"], "vocab_size": 32000, "hidden_size": 2048,
         "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32, "num_key_value_heads": 4,
         "max_position_embeddings": 2048, "rms_norm_eps": 1e-05})"},
    {"HuggingFaceTB/SmolLM2-135M", 0.135, 0, nullptr,
     R"({"architectures": ["LlamaForCausalLM"], "vocab_size": 49152, "hidden_size": 576,
         "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
         "max_position_embeddings": 8192, "rms_norm_eps": 1e-05, "rope_theta": 100000,
         "tie_word_embeddings": true})"},
    {"HuggingFaceTB/SmolLM2-360M", 0.362, 0, "HuggingFaceTB/SmolLM2-135M",
     R"({"hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 15,
         "num_key_value_heads": 5})"},
    {"HuggingFaceTB/SmolLM2-1.7B", 1.71, 0, "HuggingFaceTB/SmolLM2-135M",
     R"({"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32,
         "num_key_value_heads": 32, "rope_theta": 130000})"},
    {"meta-llama/Meta-Llama-3-8B", 8.03, 0, nullptr,
     R"({"architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "hidden_size": 4096,
         "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
         "num_key_value_heads": 8, "max_position_embeddings": 8192, "rms_norm_eps": 1e-05, "rope_theta": 500000})"},
    {"meta-llama/Meta-Llama-3-70B", 70.6, 0, "meta-llama/Meta-Llama-3-8B",
     R"({"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64})"},
    {"meta-llama/Llama-3.1-8B", 8.03, 0, "meta-llama/Meta-Llama-3-8B",
     R"({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
         "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})"},
    {"meta-llama/Llama-3.1-70B", 70.6, 0, "meta-llama/Meta-Llama-3-70B",
     R"({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
         "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})"},
    {"meta-llama/Llama-3.1-405B", 406, 0, "meta-llama/Llama-3.1-70B",
     R"({"hidden_size": 16384, "intermediate_size": 53248, "num_hidden_layers": 126, "num_attention_heads": 128})"},
    {"meta-llama/Llama-3.2-1B", 1.24, 0, "meta-llama/Llama-3.1-8B",
     R"({"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64,
         "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 8192}, "tie_word_embeddings": true})"},
    {"meta-llama/Llama-3.2-3B", 3.21, 0, "meta-llama/Llama-3.2-1B",
     R"({"hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24, "head_dim": 128})"},
    {"meta-llama/Llama-3.3-70B-Instruct", 70.6, 0, "meta-llama/Llama-3.1-70B", R"({})"},
    {"01-ai/Yi-6B", 6.06, 0, nullptr,
     R"({"architectures": ["LlamaForCausalLM"], "vocab_size": 64000, "hidden_size": 4096,
         "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
         "num_key_value_heads": 4, "max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "rope_theta": 5000000})"},
    {"01-ai/Yi-9B", 8.83, 0, "01-ai/Yi-6B", R"({"num_hidden_layers": 48})"},
    {"01-ai/Yi-34B", 34.4, 0, "01-ai/Yi-6B",
     R"({"hidden_size": 7168, "intermediate_size": 20480, "num_hidden_layers": 60, "num_attention_heads": 56,
         "num_key_value_heads": 8})"},
    {"deepseek-ai/deepseek-llm-7b-base", 6.91, 0, nullptr,
     R"({"architectures": ["LlamaForCausalLM"], "vocab_size": 102400, "hidden_size": 4096,
         "intermediate_size": 11008, "num_hidden_layers": 30, "num_attention_heads": 32,
         "num_key_value_heads": 32, "max_position_embeddings": 4096, "rms_norm_eps": 1e-06})"},
    {"deepseek-ai/deepseek-llm-67b-base", 67.4, 0, "deepseek-ai/deepseek-llm-7b-base",
     R"({"hidden_size": 8192, "intermediate_size": 22016, "num_hidden_layers": 95, "num_attention_heads": 64,
         "num_key_value_heads": 8})"},
    {"deepseek-ai/deepseek-coder-1.3b-base", 1.35, 0, nullptr,
     R"({"architectures": ["LlamaForCausalLM"], "vocab_size": 32256, "hidden_size": 2048,
         "intermediate_size": 5504, "num_hidden_layers": 24, "num_attention_heads": 16,
         "num_key_value_heads": 16, "max_position_embeddings": 16384, "rms_norm_eps": 1e-06,
         "rope_theta": 100000, "rope_scaling": {"type": "linear", "factor": 4.0}})"},
    {"deepseek-ai/deepseek-coder-6.7b-base", 6.74, 0, "deepseek-ai/deepseek-coder-1.3b-base",
     R"({"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
         "num_key_value_heads": 32})"},
    {"deepseek-ai/deepseek-coder-33b-base", 33.3, 0, "deepseek-ai/deepseek-coder-1.3b-base",
     R"({"hidden_size": 7168, "intermediate_size": 19200, "num_hidden_layers": 62, "num_attention_heads": 56,
         "num_key_value_heads": 8})"},
    {"deepseek-ai/DeepSeek-R1-Distill-Llama-8B", 8.03, 0, "meta-llama/Llama-3.1-8B", R"({})"},
    {"deepseek-ai/DeepSeek-R1-Distill-Llama-70B", 70.6, 0, "meta-llama/Llama-3.1-70B", R"({})"},
    {"mistralai/Mistral-7B-v0.1", 7.24, 0, nullptr,
     R"({"architectures": ["MistralForCausalLM"], "vocab_size": 32000, "hidden_size": 4096,
         "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
         "num_key_value_heads": 8, "max_position_embeddings": 32768, "rms_norm_eps": 1e-05,
         "sliding_window": 4096})"},
    {"mistralai/Mistral-7B-v0.3", 7.25, 0, "mistralai/Mistral-7B-v0.1",
     R"({"vocab_size": 32768, "rope_theta": 1000000, "sliding_window": null})"},
    {"mistralai/Mistral-Nemo-Instruct-2407", 12.2, 0, "mistralai/Mistral-7B-v0.3",
     R"({"vocab_size": 131072, "hidden_size": 5120, "num_hidden_layers": 40, "head_dim": 128,
         "max_position_embeddings": 131072})"},
    {"mistralai/Mistral-Small-24B-Base-2501", 23.6, 0, "mistralai/Mistral-Nemo-Instruct-2407",
     R"({"intermediate_size": 32768, "rope_theta": 100000000, "max_position_embeddings": 32768})"},
    {"Qwen/Qwen1.5-0.5B", 0.464, 0, nullptr,
     R"({"architectures": ["Qwen2ForCausalLM"], "vocab_size": 151936, "hidden_size": 1024,
         "intermediate_size": 2816, "num_hidden_layers": 24, "num_attention_heads": 16,
         "num_key_value_heads": 16, "max_position_embeddings": 32768, "rope_theta": 1000000,
         "tie_word_embeddings": true})"},
    {"Qwen/Qwen1.5-1.8B", 1.84, 0, "Qwen/Qwen1.5-0.5B",
     R"({"hidden_size": 2048, "intermediate_size": 5504, "tie_word_embeddings": false})"},
    {"Qwen/Qwen1.5-4B", 3.95, 0, "Qwen/Qwen1.5-1.8B",
     R"({"hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 40, "num_attention_heads": 20,
         "num_key_value_heads": 20})"},
    {"Qwen/Qwen1.5-7B", 7.72, 0, "Qwen/Qwen1.5-1.8B",
     R"({"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
         "num_key_value_heads": 32})"},
    {"Qwen/Qwen1.5-14B", 14.2, 0, "Qwen/Qwen1.5-1.8B",
     R"({"vocab_size": 152064, "hidden_size": 5120, "intermediate_size": 13696, "num_hidden_layers": 40,
         "num_attention_heads": 40, "num_key_value_heads": 40})"},
    {"Qwen/Qwen1.5-32B", 32.5, 0, "Qwen/Qwen1.5-14B",
     R"({"intermediate_size": 27392, "num_hidden_layers": 64, "num_key_value_heads": 8})"},
    {"Qwen/Qwen1.5-72B", 72.3, 0, "Qwen/Qwen1.5-14B",
     R"({"hidden_size": 8192, "intermediate_size": 24576, "num_hidden_layers": 80, "num_attention_heads": 64,
         "num_key_value_heads": 64})"},
    {"Qwen/Qwen1.5-110B", 111, 0, "Qwen/Qwen1.5-72B", R"({"intermediate_size": 49152, "num_key_value_heads": 8})"},
    {"Qwen/Qwen2-0.5B", 0.494, 0, "Qwen/Qwen1.5-0.5B",
     R"({"hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14, "num_key_value_heads": 2,
         "max_position_embeddings": 131072})"},
    {"Qwen/Qwen2-1.5B", 1.54, 0, "Qwen/Qwen2-0.5B",
     R"({"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12})"},
    {"Qwen/Qwen2-7B", 7.62, 0, "Qwen/Qwen2-0.5B",
     R"({"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
         "num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": false})"},
    {"Qwen/Qwen2-72B", 72.7, 0, "Qwen/Qwen2-7B",
     R"({"hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80, "num_attention_heads": 64,
         "num_key_value_heads": 8})"},
    {"Qwen/Qwen2.5-0.5B", 0.494, 0, "Qwen/Qwen2-0.5B", R"({"max_position_embeddings": 32768})"},
    {"Qwen/Qwen2.5-1.5B", 1.54, 0, "Qwen/Qwen2-1.5B", R"({})"},
    {"Qwen/Qwen2.5-3B", 3.09, 0, "Qwen/Qwen2.5-0.5B",
     R"({"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16})"},
    {"Qwen/Qwen2.5-7B", 7.62, 0, "Qwen/Qwen2-7B", R"({})"},
    {"Qwen/Qwen2.5-14B", 14.8, 0, "Qwen/Qwen2-7B",
     R"({"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 48, "num_attention_heads": 40,
         "num_key_value_heads": 8})"},
    {"Qwen/Qwen2.5-32B", 32.8, 0, "Qwen/Qwen2.5-14B", R"({"intermediate_size": 27648, "num_hidden_layers": 64})"},
    {"Qwen/Qwen2.5-72B", 72.7, 0, "Qwen/Qwen2-72B", R"({})"},
    {"Qwen/Qwen2.5-Coder-7B", 7.62, 0, "Qwen/Qwen2.5-7B", R"({"max_position_embeddings": 32768})"},
    {"Qwen/Qwen2.5-Coder-32B", 32.8, 0, "Qwen/Qwen2.5-32B", R"({"max_position_embeddings": 32768})"},
    {"Qwen/QwQ-32B", 32.8, 0, "Qwen/Qwen2.5-32B", R"({})"},
    {"deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1.78, 0, "Qwen/Qwen2.5-1.5B",
     R"({"rope_theta": 10000, "tie_word_embeddings": false})"},
    {"deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", 7.62, 0, "Qwen/Qwen2.5-7B", R"({"rope_theta": 10000})"},
    {"deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", 14.8, 0, "Qwen/Qwen2.5-14B", R"({})"},
    {"deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", 32.8, 0, "Qwen/Qwen2.5-32B", R"({})"},
};

const Row& row_named(std::string_view name) {
  const Row* row = std::ranges::find(kRows, name, [](const Row& r) { return std::string_view(r.name); });
  MR_CHECK(row != std::end(kRows), "no row is named {}", name);
  return *row;
}

Json whole_config(const Row& row) {
  Json config = row.like ? whole_config(row_named(row.like)) : Json::object();
  config.update(Json::parse(row.config));
  return config;
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

}  // namespace

const std::vector<WellKnownModel>& well_known_models() {
  static const std::vector<WellKnownModel> models = [] {
    std::vector<WellKnownModel> all;
    for (const Row& row : kRows) all.push_back({row.name, row.billions, row.active_billions, whole_config(row)});
    return all;
  }();
  return models;
}

const WellKnownModel* find_well_known(std::string_view name) {
  const std::string wanted = lower(name);
  for (const WellKnownModel& model : well_known_models()) {
    const std::string known = lower(model.name);
    if (known == wanted || known.substr(known.find('/') + 1) == wanted) return &model;
  }
  return nullptr;
}

std::vector<std::string> well_known_names() {
  std::vector<std::string> names;
  for (const WellKnownModel& model : well_known_models()) names.push_back(model.name);
  return names;
}

}  // namespace millrace
