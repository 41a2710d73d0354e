// The stations of a text on its way to ids: added tokens, normalizer, pre-tokenizers, model, template; and of ids back
// to text. Every file format ends up as one of these. Immutable after loading; any thread.
#pragma once
#include <memory>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tokenizer/model/model.h"
#include "tokenizer/pipeline/added_tokens.h"
#include "tokenizer/pipeline/decoder.h"
#include "tokenizer/text/normalizer.h"
#include "tokenizer/text/pre_tokenizer.h"

namespace millrace {

// What stands around a text: ids, and kText where the text's own ids go.
using Template = std::vector<int32_t>;
inline constexpr int32_t kText = -1;

struct Pipeline {
  NormalizerPtr normalizer;  // may be null
  AddedTokens added;
  std::vector<PreTokenizerPtr> pre_tokenizers;
  std::unique_ptr<const Model> model;
  Template around = {kText};
  std::vector<DecoderPtr> decoders;

  // Appends the ids of `text` (valid UTF-8), without what stands around it.
  Status encode(std::string_view text, bool parse_special, ModelScratch& scratch, std::vector<int32_t>& ids) const;

 private:
  Status encode_section(std::string_view text, bool at_start, bool parse_special, ModelScratch& scratch,
                        std::vector<int32_t>& ids) const;
  Status encode_normalized(std::string_view text, bool at_start, ModelScratch& scratch,
                           std::vector<int32_t>& ids) const;
};

}  // namespace millrace
