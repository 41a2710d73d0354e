// Ids to text, as the output thread uses it.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/client.h"

namespace millrace {

class Tokenizer;

// The text of one growing sequence. Never half a character. One thread.
class TextDecoder {
 public:
  virtual ~TextDecoder() = default;
  // The text that this id decides; may be empty.
  virtual std::string append(int32_t token) = 0;
  // The rest, once; nothing is appended after it.
  virtual std::string flush() = 0;
};

// A decoder for one generated sequence of a request. Called on the output thread.
using TextDecoderFactory = std::function<std::unique_ptr<TextDecoder>(const GenerationRequest&)>;

TextDecoderFactory text_decoders(std::shared_ptr<const Tokenizer> tokenizer);

}  // namespace millrace
