// The golden folders of the families that are served: some ship with the project, all lie in ../shared/golden where
// that exists.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace millrace {

struct GoldenFolder {
  const char* name;
  const char* family;  // Family::name
};
inline constexpr GoldenFolder kGoldenFolders[] = {
    {"llama1", "llama"},
    {"llama2", "llama"},
    {"llama3", "llama"},
    {"llama3_1", "llama"},
    {"llama3_2", "llama"},
    {"yi", "llama"},
    {"deepseek_llm", "llama"},
    {"llama_bias", "llama"},
    {"llama_rope_linear", "llama"},
    {"llama_rope_dynamic", "llama"},
    {"llama_rope_yarn", "llama"},
    {"mistral", "mistral"},
    {"qwen1_5", "qwen2"},
    {"qwen2", "qwen2"},
    {"qwen2_5", "qwen2"},
    {"qwen2_5_yarn", "qwen2"},
    {"qwen2_sliding", "qwen2"},
    {"qwen_v1", "qwen"},
    {"qwen_v1_ntk_logn", "qwen"},
    {"qwen3", "qwen3"},
    {"gemma", "gemma"},
    {"gemma2", "gemma2"},
    {"baichuan2_7b", "baichuan"},
    {"baichuan2_13b", "baichuan_13b"},
    {"chatglm2", "chatglm"},
    {"chatglm3", "chatglm"},
    {"glm4_9b", "chatglm"},
    {"glm4_hf", "glm"},
    {"falcon_7b", "falcon_7b"},
    {"falcon2_11b", "falcon2"},
    {"internlm2", "internlm2"},
    {"phi3", "phi3"},
    {"gpt2", "gpt2"},
    {"mixtral", "mixtral"},
    {"qwen2_moe", "qwen2_moe"},
    {"qwen3_moe", "qwen3_moe"},
    {"deepseek_v2", "deepseek_v2"},
    {"deepseek_v2_lite", "deepseek_v2"},
    {"deepseek_v3", "deepseek_v3"},
};

// The shared folder where it exists (it holds the full logits), else the shipped copy; families with neither are left
// out.
inline std::vector<std::string> golden_folders() {
  const std::filesystem::path top = MILLRACE_SOURCE_DIR;
  std::vector<std::string> folders;
  for (const GoldenFolder& folder : kGoldenFolders)
    for (const auto& place : {top / "../shared/golden" / folder.name, top / "tests/golden" / folder.name})
      if (std::filesystem::exists(place / "config.json")) {
        folders.push_back(place);
        break;
      }
  return folders;
}

}  // namespace millrace
