// tokenizer.json made of the vocabularies that GGUF files hold, with the pre-tokenizers these models are known to have.
#pragma once
#include <string>

namespace millrace {

// deepseek-llm, deepseek-coder, falcon, gpt-2, phi-3 or llama-spm.
std::string tokenizer_json_from_gguf(const std::string& name);

}  // namespace millrace
