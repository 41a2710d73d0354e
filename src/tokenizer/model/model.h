// A model turns pieces of text into token ids. Immutable; any thread, each with its own scratch.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tokenizer/model/vocabulary.h"
#include "tokenizer/text/pieces.h"

namespace millrace {

// What a model needs besides its tables while it encodes; kept between calls so that they allocate nothing. One thread
// at a time.
class ModelScratch {
 public:
  virtual ~ModelScratch() = default;
  // Lets go of memory that only a very long text needed.
  virtual void trim() {}
};

class Model {
 public:
  virtual ~Model() = default;
  virtual std::unique_ptr<ModelScratch> new_scratch() const { return std::make_unique<ModelScratch>(); }
  // Appends the ids of all pieces of `list`. `scratch` is from new_scratch() of this model.
  virtual Status encode(const PieceList& list, ModelScratch& scratch, std::vector<int32_t>& ids) const = 0;
  // The tokens as their file spells them.
  virtual const Vocabulary& vocabulary() const = 0;
};

}  // namespace millrace
