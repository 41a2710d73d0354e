// What a Tokenizer holds. Internal to the folder.
#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "tokenizer/pipeline/pipeline.h"
#include "tokenizer/tokenizer.h"

namespace millrace {

// Scratch of the model, one for each thread that encodes at the moment; kept for the next call.
class ScratchPool {
 public:
  explicit ScratchPool(const Model& model) : model_(model) {}

  class Lease {
   public:
    explicit Lease(ScratchPool& pool) : pool_(pool), scratch_(pool.take()) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() { pool_.give_back(std::move(scratch_)); }
    ModelScratch& operator*() { return *scratch_; }

   private:
    ScratchPool& pool_;
    std::unique_ptr<ModelScratch> scratch_;
  };

 private:
  static constexpr size_t kMostKept = 8;
  std::unique_ptr<ModelScratch> take();
  void give_back(std::unique_ptr<ModelScratch> scratch);

  const Model& model_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<ModelScratch>> free_;
};

struct Tokenizer::State {
  Pipeline pipeline;
  SpecialTokens special;
  std::map<std::string, std::string> chat_templates;
  bool cleans_up_spaces = false;
  std::string description;

  // Derived from the pipeline by finish().
  std::unordered_map<std::string, int32_t> added_ids;
  std::unordered_map<int32_t, size_t> added_by_id;  // index into pipeline.added.tokens()
  // Added tokens as the decoders want them: they stand for their own text, so where the decoders read bytes they are
  // spelled in bytes.
  std::vector<std::string> added_texts;
  int32_t end_id = 0;
  bool byte_level = false, byte_fallback = false;  // how the decoders read single bytes: "\u0120" and "<0x20>"
  mutable std::unique_ptr<ScratchPool> scratch;

  void finish();
  const AddedToken* added(int32_t id) const;
  // The token as its file spells it; "" if there is none.
  std::string_view text(int32_t id) const;
  // The token as the decoders want it; nothing if there is none.
  std::optional<std::string_view> decodable(int32_t id) const;
  // What the decoders make of two tokens in a row.
  std::string decode_pair(std::string_view first, std::string_view second) const;
};

}  // namespace millrace
