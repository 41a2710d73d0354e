// The golden folders of the families that are served: some ship with the project, all lie in ../shared/golden where
// that exists.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace millrace {

inline const char* const kGoldenFamilies[] = {"llama1",
                                              "llama2",
                                              "llama3",
                                              "llama3_1",
                                              "llama3_2",
                                              "yi",
                                              "deepseek_llm",
                                              "llama_bias",
                                              "llama_rope_linear",
                                              "llama_rope_dynamic",
                                              "llama_rope_yarn",
                                              "mistral",
                                              "qwen1_5",
                                              "qwen2",
                                              "qwen2_5",
                                              "qwen2_5_yarn",
                                              "qwen2_sliding",
                                              "qwen_v1",
                                              "qwen_v1_ntk_logn",
                                              "qwen3",
                                              "gemma",
                                              "gemma2",
                                              "baichuan2_7b",
                                              "baichuan2_13b",
                                              "chatglm2",
                                              "chatglm3",
                                              "glm4_9b",
                                              "glm4_hf",
                                              "falcon_7b",
                                              "falcon2_11b",
                                              "internlm2",
                                              "phi3",
                                              "gpt2",
                                              "mixtral",
                                              "qwen2_moe",
                                              "qwen3_moe",
                                              "deepseek_v2",
                                              "deepseek_v2_lite",
                                              "deepseek_v3"};

// The shared folder where it exists (it holds the full logits), else the shipped copy; families with neither are left
// out.
inline std::vector<std::string> golden_folders() {
  const std::filesystem::path top = MILLRACE_SOURCE_DIR;
  std::vector<std::string> folders;
  for (const char* family : kGoldenFamilies)
    for (const auto& place : {top / "../shared/golden" / family, top / "tests/golden" / family})
      if (std::filesystem::exists(place / "config.json")) {
        folders.push_back(place);
        break;
      }
  return folders;
}

}  // namespace millrace
