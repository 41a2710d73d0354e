// tokenizer.json of the Hugging Face tokenizers library. What a file asks for and this reader lacks is refused by name.
#pragma once
#include <string_view>

#include "base/result.h"
#include "tokenizer/format/json_node.h"
#include "tokenizer/format/parts.h"

namespace millrace {

Result<TokenizerParts> read_hf_tokenizer(std::string_view json_text);

// An added token but for its id. Flags that are not given are off, `normalized` is on but for special tokens.
Result<AddedToken> read_added_token_flags(const JsonNode& node);

// The pieces of it, each from the object of that name.
Result<NormalizerPtr> read_normalizer(const JsonNode& node);

// How the pieces that reach the model are written.
struct PreTokenization {
  std::vector<PreTokenizerPtr> steps;
  // The pieces are raw bytes that the file wants in the byte-level alphabet: its ByteLevel is the last step, so the
  // mapping is left to the model.
  bool ends_in_byte_level = false;
  // A step in the middle mapped them.
  bool mapped = false;
};
Result<PreTokenization> read_pre_tokenizer(const JsonNode& node);
Result<Template> read_post_processor(const JsonNode& node);
Result<std::vector<DecoderPtr>> read_decoder(const JsonNode& node);
// A pattern: {"String": "..."} or {"Regex": "..."}.
Result<Pattern> read_pattern(const JsonNode& node);

}  // namespace millrace
