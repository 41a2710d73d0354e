#include "tests/models/families/models_page.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <vector>

#include "base/check.h"
#include "models/families/families.h"
#include "models/families/presets.h"
#include "models/families/read_spec.h"
#include "models/families/well_known.h"
#include "tests/golden_folders.h"

namespace millrace {
namespace {

using Words = std::vector<std::string>;

constexpr const char* kTop = R"(# Models

<!-- Made from the families. Don't edit; make it anew with: cmake --build build --target models_page -->

What is served, in which precisions, and how it is verified. A checkpoint is served by the family that its `architectures` (or
`model_type`) names, whatever the checkpoint is called; the models below are those of the built-in list of
[`millrace plan`](plan.md). Rotations may be scaled in any way that config files state: linear, dynamic, yarn, longrope, llama3.
What differs from a plain Llama is read from `config.json`; a setting that is not built is refused by the name of its key.
[adding-a-model](adding-a-model.md) shows how a family is added.

)";

constexpr const char* kPrecisions = R"(
## Precisions

Every family runs in float32, bfloat16 and float16 (`--dtype`; by default what the checkpoint is stored in). Sums are float32
everywhere. float32 weights meet float32 activations, bfloat16 weights activations rounded to bfloat16, float16 weights activations
rounded to the sum of two bfloat16 (16 significant bits, where a float16 has 11). Matrices that AWQ, GPTQ, compressed-tensors or
SmoothQuant quantised (`quantization_config`) stay integers in every family; what is not served of those methods is refused by the name of its key.
)";

constexpr const char* kVerified = R"(
## Verification

A golden folder holds a small checkpoint with random weights, odd sizes and the numbers that the reference implementation gives
for it in float32: logits of prompts of 1, 17 and 70 tokens, and 24 greedy tokens after each. For every folder above, tests check

- every key of its `config.json` is known, every tensor of its file is read, and all come back bit for bit when saved;
- the decoder's float32 logits are within 1e-4 of the reference's with every instruction set that the machine has, and
  bit-identical however prompts are cut into chunks and whatever else is in the batch;
- the server gives the reference's log-probabilities and greedy tokens.

A family without a golden folder is not compared with a reference implementation: its configs, the names and counts of its
tensors and those of its parts that other families have are tested. The configs of all models named above are read whole by their
families, and the parameters counted from them are within 1 % of the published numbers.
)";

DecoderSpec spec_of(const Json& config) {
  const Result<SpecReading> reading = read_spec(config);
  MR_CHECK(reading.ok(), "{}", reading.status().message());
  return reading->spec;
}

// Specs of the list's checkpoints of a family; of its small preset where there are none.
std::vector<DecoderSpec> specs_of(const Family& family) {
  std::vector<DecoderSpec> specs;
  for (const WellKnownModel& model : well_known_models())
    if (*family_of_config(model.config) == &family) specs.push_back(spec_of(model.config));
  if (specs.empty()) specs.push_back(spec_of(*preset_config(family.name, "tiny")));
  return specs;
}

void add_if(Words& words, bool holds, const char* word) {
  if (holds && std::ranges::find(words, word) == words.end()) words.emplace_back(word);
}

void add_attention(Words& words, const DecoderSpec& spec) {
  const auto& first = spec.layers.front().attention;
  add_if(words, std::holds_alternative<Mla>(first), "latent attention");
  const Gqa* gqa = std::get_if<Gqa>(&first);
  if (!gqa) return;
  int64_t windows = 0;
  for (const LayerSpec& layer : spec.layers) windows += std::get<Gqa>(layer.attention).window > 0;
  add_if(words, gqa->kv_heads == 1 && gqa->heads > 1, "one key/value head");
  add_if(words, gqa->qkv_bias, "biases on q, k, v");
  add_if(words, gqa->qk_norm, "norms on q and k");
  add_if(words, windows == static_cast<int64_t>(spec.layers.size()), "sliding window");
  add_if(words, windows > 0 && windows < static_cast<int64_t>(spec.layers.size()), "sliding window in some layers");
  add_if(words, gqa->soft_cap > 0, "soft caps on scores");
  add_if(words, gqa->alibi != Alibi::kNone, "ALiBi");
  add_if(words, gqa->logn_length > 0, "queries scaled with log n");
}

void add_positions(Words& words, const DecoderSpec& spec) {
  const Gqa* gqa = std::get_if<Gqa>(&spec.layers.front().attention);
  add_if(words, spec.learned_positions > 0, "learned positions");
  add_if(words, gqa && spec.rope.dims > 0 && spec.rope.dims < gqa->head_dim, "partial rotation");
  add_if(words, spec.rope.dims > 0 && spec.rope.layout == Rope::Layout::kInterleaved, "interleaved rotation");
  add_if(words, spec.rope.scaling == Rope::Scaling::kQwenNtk, "dynamic NTK in powers of two");
}

void add_mlp(Words& words, const DecoderSpec& spec) {
  const auto& last = spec.layers.back().mlp;
  add_if(words, std::holds_alternative<Mlp>(last), "feed-forward without gate");
  const Moe* moe = std::get_if<Moe>(&last);
  if (!moe) return;
  add_if(words, true, "experts");
  add_if(words, moe->shared.hidden > 0, moe->shared_gate ? "gated shared expert" : "shared experts");
  add_if(words, moe->router.groups > 1, "routing by groups");
  add_if(words, moe->router.score == Routing::Score::kSigmoid, "sigmoid routing with a correction");
  add_if(words, std::holds_alternative<Glu>(spec.layers.front().mlp), "dense first layers");
}

void add_rest(Words& words, const DecoderSpec& spec) {
  add_if(words, spec.norm == NormKind::kLayer, "layer norms");
  add_if(words, spec.norm_plus_one, "norms of 1 + weight");
  add_if(words, spec.branch_norms, "norms behind branches");
  add_if(words, spec.residual != Residual::kSequential, "parallel residual");
  add_if(words, spec.embedding_scale != 1, "scaled embedding");
  add_if(words, spec.normalized_head, "normalised head");
  add_if(words, spec.final_logit_soft_cap > 0, "soft cap on logits");
}

std::string parts_of(const std::vector<DecoderSpec>& specs) {
  Words words;
  for (const DecoderSpec& spec : specs) add_attention(words, spec);
  for (const DecoderSpec& spec : specs) add_positions(words, spec);
  for (const DecoderSpec& spec : specs) add_mlp(words, spec);
  for (const DecoderSpec& spec : specs) add_rest(words, spec);
  return words.empty() ? "-" : fmt::format("{}", fmt::join(words, ", "));
}

std::string models_of(const Family& family) {
  Words names;
  for (const WellKnownModel& model : well_known_models())
    if (*family_of_config(model.config) == &family) names.push_back(model.name.substr(model.name.find('/') + 1));
  return names.empty() ? "-" : fmt::format("{}", fmt::join(names, ", "));
}

std::string folders_of(const Family& family) {
  Words names;
  for (const GoldenFolder& folder : kGoldenFolders)
    if (family.name == folder.family) names.push_back(fmt::format("`{}`", folder.name));
  return names.empty() ? "-" : fmt::format("{}", fmt::join(names, ", "));
}

std::string family_row(const Family& family) {
  return fmt::format("| {} | `{}` | {} | {} | {} |\n", family.name, fmt::join(family.hf_architectures, "`, `"),
                     models_of(family), parts_of(specs_of(family)), folders_of(family));
}

}  // namespace

std::string models_page() {
  std::string page = kTop;
  page += "| family | classes | models | besides a plain Llama's parts | golden folders |\n|---|---|---|---|---|\n";
  for (const Family* family : all_families()) page += family_row(*family);
  return page + kPrecisions + kVerified;
}

}  // namespace millrace
