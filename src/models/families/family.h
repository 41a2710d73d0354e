// A model family as rows of data: which checkpoints it serves, how their config.json becomes a DecoderSpec and how
// their tensors are named. No arithmetic and no code; read_spec.h and names.h interpret the rows. Constant after
// start-up: any thread.
#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace millrace {

// What a config row may state about the model. How each value is read and bounded: read_spec.cc.
enum class Field : uint8_t {
  kVocabSize,
  kHiddenSize,
  kLayers,
  kHeads,
  kKvHeads,  // null: as many as query heads
  kHeadDim,  // null: hidden size / heads
  kMlpHidden,
  kActivation,
  kNormEps,
  kMaxPositions,
  kRopeTheta,
  kTieEmbeddings,
  kQkvBias,
  kOutBias,
  kMlpBias,
  kWindow,            // keys a query sees, itself included; null: all
  kUseWindow,         // false: kWindow says nothing
  kFirstWindowLayer,  // read, not applied: see read_spec.cc
  kLayerTypes,        // list of "full_attention" and "sliding_attention", one per layer; null: the window is everywhere
  kDType,
  kBosToken,
  kEosTokens,  // an id or a list of ids
};

// `key` of config.json states `field`; where the key is absent, `fallback` (the reference's class default) does.
// Several rows may name one field (spellings of one key: the first that is present counts, and they must agree) and
// several fields one key.
struct ConfigRow {
  Field field;
  std::string key;
  std::optional<Json> fallback = std::nullopt;  // nothing: the key is required
};
// A fact that config.json does not state.
struct FixedRow {
  Field field;
  Json value;
};
// A key whose value changes the arithmetic in a way that is not built: anything but null or one of `neutral` is
// refused.
struct RefusedRow {
  std::string key;
  std::vector<Json> neutral;
  std::string reason;  // completes "<key> is <value>: ..."
};

// How tensors of a file and canonical tensors correspond. Patterns name modules ("layers.*.attn.q"); `*` is the layer's
// number, and the parameters .weight and .bias follow by themselves. Every packing has an inverse.
enum class Packing : uint8_t {
  kSame,        // one file tensor is one canonical tensor
  kConcatRows,  // one file tensor holds several canonical ones, stacked along axis 0 in the order given
};
struct WeightRow {
  Packing packing;
  std::vector<std::string> canonical;
  std::string file;
};
inline WeightRow rename(std::string canonical, std::string file) {
  return {Packing::kSame, {std::move(canonical)}, std::move(file)};
}
inline WeightRow concat_rows(std::vector<std::string> canonical, std::string file) {
  return {Packing::kConcatRows, std::move(canonical), std::move(file)};
}

// Facts about text that the tokenizer's files may leave out.
struct TextFacts {
  std::vector<std::string> stop;  // spellings of tokens that end a turn
};

struct Family {
  std::string name;
  std::vector<std::string> hf_architectures;  // `architectures` of config.json
  std::vector<std::string> model_types;       // `model_type`, for files that state no architecture
  const Family* based_on = nullptr;           // its rows hold too, except for fields and canonical names given here
  std::vector<ConfigRow> config;
  std::vector<FixedRow> fixed;
  std::vector<std::string> harmless_keys;  // known not to change the arithmetic, besides those of every family
  std::vector<RefusedRow> refused;
  std::vector<WeightRow> weights;
  std::vector<std::string> harmless_tensors;  // patterns of names a file may hold though nothing reads them
  TextFacts text;
};

}  // namespace millrace
