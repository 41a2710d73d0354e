// How tokens are shown in log-probabilities.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "server/text_codec.h"

namespace millrace {

class TokenNames {
 public:
  // Without a codec every token is "token_id:<id>", and so it is with `as_ids`.
  TokenNames(std::shared_ptr<const TextCodec> codec, bool as_ids)
      : codec_(std::move(codec)), as_ids_(as_ids || !codec_) {}

  std::string name(int32_t id) const;  // valid UTF-8, or with U+FFFD where a token is part of a character
  // The bytes behind the name; those of the name where tokens have no text here.
  std::string bytes(int32_t id) const { return codec_ ? codec_->token_bytes(id) : name(id); }
  const TextCodec* codec() const { return codec_.get(); }

 private:
  std::shared_ptr<const TextCodec> codec_;
  bool as_ids_;
};

}  // namespace millrace
