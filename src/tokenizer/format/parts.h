// What a tokenizer file says, before the configuration beside it had its say.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "tokenizer/pipeline/pipeline.h"
#include "tokenizer/special_tokens.h"

namespace millrace {

struct TokenizerParts {
  NormalizerPtr normalizer;
  std::vector<AddedToken> added;
  std::vector<PreTokenizerPtr> pre_tokenizers;
  std::unique_ptr<const Model> model;
  Template around = {kText};
  std::vector<DecoderPtr> decoders;
  std::string kind;     // "BPE", for log lines
  SpecialTokens names;  // that the file itself knows; the configuration goes before it
  // Special tokens that no file of a checkpoint lists, by name; see classes.h.
  std::vector<std::string> numbered_on;  // get the ids behind the model's vocabulary, in this order
  std::vector<std::string> prefix;       // go in front of a text
  // Whether bos and eos go around a text where the configuration does not say.
  bool adds_bos = false, adds_eos = false;
};

}  // namespace millrace
