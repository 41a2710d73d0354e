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
  // The model as a whole.
  kVocabSize,
  kHiddenSize,
  kLayers,
  kMaxPositions,
  kDType,
  kBosToken,
  kEosTokens,  // an id or a list of ids
  kTieEmbeddings,
  kNormalizedHead,
  kEmbeddingScale,  // a number, or "sqrt(hidden_size)"
  kFinalSoftCap,
  kNextTokenLayers,  // layers behind the last one that only speculate; files may hold them, nothing reads them
  // Norms and residuals.
  kNormKind,  // "rms" or "layer"
  kNormEps,
  kNormBias,
  kNormPlusOne,
  kBranchNorms,
  kResidual,  // "sequential", "parallel" or "parallel_two_norms"
  // Attention.
  kHeads,
  kKvHeads,     // null: as many as query heads
  kMultiQuery,  // false: as many key/value heads as query heads
  kOneKvHead,   // true: one key/value head whatever kKvHeads says
  kHeadDim,     // null: hidden size / heads
  kQkvBias,
  kOutBias,
  kQkNorm,
  kQueryPreAttnScalar,  // scores are divided by its square root
  kAttentionSoftCap,
  kAlibi,             // true: linear position biases and no rotation
  kAlibiKind,         // "scaled" or "bf16_unscaled"
  kAlibiFactor,       // multiplies the slopes
  kLognAttention,     // true: queries grow with the logarithm of their position beyond kTrainedLength
  kWindow,            // keys a query sees, itself included; null: all
  kUseWindow,         // false: kWindow says nothing
  kWindowEvery,       // n: layers 0, n, 2n, ... have the window
  kFirstWindowLayer,  // read, not applied: see read_layers.cc
  kLayerTypes,        // list of "full_attention" and "sliding_attention", one per layer; null: the window is everywhere
  // Latent attention: there where kKvLoraRank has a row.
  kQLoraRank,  // null: none
  kKvLoraRank,
  kNopeDim,
  kRopeDim,
  kVDim,
  // Positions.
  kLearnedPositions,  // true: a table of kMaxPositions rows and no rotation
  kRopeTheta,
  kRopeThetaFactor,  // multiplies theta
  kRotaryFraction,   // of each head that turns
  kRopeInterleaved,
  kTrainedLength,
  kDynamicNtk,        // true: theta grows in powers of two beyond kTrainedLength
  kLongRopeSwitches,  // true: short_factor up to the original length, long_factor beyond it
  kYarnStatedLength,  // true: yarn counts rotations over original_max_position_embeddings
  kYarnScoreScale,    // true: mscale_all_dim scales the scores, twice, and divides out of cos and sin
  // Feed-forward part.
  kMlpHidden,
  kMlpHiddenFactor,   // kMlpHidden null: this times the hidden size
  kMlpHiddenDivisor,  // kMlpHidden counts this many matrices together
  kActivation,
  kMlpBias,
  kMlpGated,  // false: down(act(up(x)))
  // Experts: there where kExperts is above 0.
  kExperts,
  kExpertsPerToken,
  kExpertHidden,
  kSharedHidden,   // width of the shared expert; 0: none
  kSharedExperts,  // its width in kExpertHidden
  kSharedGate,
  kFirstDenseLayers,  // this many layers have no experts
  kDenseLayers,       // list of layers that have no experts
  kSparseStep,        // n: layers n - 1, 2n - 1, ... have experts
  kExpertLayerEvery,  // n: layers 0, n, 2n, ... have experts
  kRouterScore,       // "softmax" or "sigmoid"
  kRouterMethod,      // "greedy", "group_limited_greedy" or "noaux_tc"
  kRouterGroups,
  kRouterGroupsPerToken,
  kRouterNormalize,
  kRouterScale,
  kRouterScalesNormalized,  // false: kRouterScale applies only where weights are not normalised
};

// `key` of config.json states `field`; where the key is absent, `fallback` (the reference's class default) does.
// Several rows may name one field (spellings of one key: the first that is present counts, and they must agree) and
// several fields one key.
struct ConfigRow {
  Field field;
  std::string key;
  std::optional<Json> fallback = std::nullopt;  // nothing: the key is required
  bool null_is_absent = false;                  // null means the fallback, not "none"
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

// How tensors of a file and canonical tensors correspond. Patterns name modules ("layers.*.attn.q"); the first `*` is
// the layer's number, the second the expert's, and the parameters .weight and .bias follow by themselves; a pattern may
// also be a tensor's whole name. Every packing has an inverse.
enum class Packing : uint8_t {
  kSame,           // one file tensor is one canonical tensor
  kConcatRows,     // one file tensor holds several canonical ones, stacked along axis 0 in the order given
  kConcatColumns,  // matrices are stored [in, out]; several stand side by side in the order given
  kHeadGroups,     // q, k, v: for each key/value head its query heads, then its key, then its value
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
inline WeightRow concat_columns(std::vector<std::string> canonical, std::string file) {
  return {Packing::kConcatColumns, std::move(canonical), std::move(file)};
}
inline WeightRow head_groups(std::vector<std::string> canonical, std::string file) {
  return {Packing::kHeadGroups, std::move(canonical), std::move(file)};
}

// A form of conversation that models of a family were trained on.
struct FamilyChatFormat {
  std::string name;                // "ChatML"; for messages
  std::vector<std::string> needs;  // spellings of the tokens it is written with
  std::string chat_template;       // Jinja, as a tokenizer_config.json would have it
  std::vector<std::string> stop;   // spellings of tokens that end a turn in it
};
// Facts about text that the tokenizer's files may leave out. Each family has its own: none are taken over from the one
// it is based on.
struct TextFacts {
  std::vector<std::string> stop;  // spellings of tokens that end a turn
  std::string tokenizer_class;    // where no file names one
  // Where the files have no chat template: the first whose tokens the tokenizer has. None: the family's checkpoints
  // agree on no format, or do not chat.
  std::vector<FamilyChatFormat> chat_formats;
};

// Holds where the key's value is one of `is` (if there are any) and none of `is_not`. An absent key is null.
struct Condition {
  std::string key;
  std::vector<Json> is, is_not;
};

struct Family {
  std::string name;
  std::vector<std::string> hf_architectures;  // `architectures` of config.json
  std::vector<std::string> model_types;       // `model_type`, for files that state no architecture
  std::vector<Condition> when;                // what else must hold of config.json where families share a class
  const Family* based_on = nullptr;           // its rows hold too, except for fields and canonical names given here
  std::vector<ConfigRow> config;
  std::vector<FixedRow> fixed;
  std::vector<std::string> harmless_keys;  // known not to change the arithmetic, besides those of every family
  std::vector<RefusedRow> refused;
  std::vector<WeightRow> weights;
  std::string optional_prefix;                // files may leave it out of every name
  std::vector<std::string> harmless_tensors;  // patterns of names a file may hold though nothing reads them
  TextFacts text;
};

}  // namespace millrace
