// Writes a tokenizer for a new checkpoint: byte-level BPE with 256 byte tokens, no merges, and special tokens. What is
// written is a Hugging Face tokenizer.json and tokenizer_config.json.
#pragma once
#include <string>
#include <vector>

namespace millrace {

struct ByteLevelSpec {
  // Ids 256, 257, ... in this order.
  std::vector<std::string> special_tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  std::string bos;  // one of them, or empty
  std::string eos = "<|im_end|>";
  std::string pad = "<|endoftext|>";
};

std::string byte_level_tokenizer_json(const ByteLevelSpec& spec = {});
// With a chat template in the ChatML form, "<|im_start|>role\ncontent<|im_end|>\n".
std::string byte_level_tokenizer_config(const ByteLevelSpec& spec = {});

}  // namespace millrace
