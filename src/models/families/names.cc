#include "models/families/names.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "base/check.h"
#include "models/families/families.h"

namespace millrace {
namespace {

class NeedList {
 public:
  explicit NeedList(const DecoderSpec& spec) : spec_(spec) {}
  std::vector<TensorNeed> make() {
    const int64_t C = spec_.hidden_size;
    add("embed.weight", {spec_.vocab_size, C});
    if (spec_.learned_positions > 0) add("pos_embed.weight", {spec_.learned_positions, C});
    for (size_t i = 0; i < spec_.layers.size(); ++i) layer(fmt::format("layers.{}.", i), spec_.layers[i]);
    norm("final_norm");
    if (!spec_.tie_word_embeddings) add("lm_head.weight", {spec_.vocab_size, C});
    return std::move(list_);
  }

 private:
  void add(std::string name, Sizes shape) { list_.push_back({std::move(name), std::move(shape)}); }
  void linear(const std::string& name, int64_t rows, int64_t columns, bool bias) {
    add(name + ".weight", {rows, columns});
    if (bias) add(name + ".bias", {rows});
  }
  void norm(const std::string& name) {
    add(name + ".weight", {spec_.hidden_size});
    if (spec_.norm_bias) add(name + ".bias", {spec_.hidden_size});
  }

  void layer(const std::string& name, const LayerSpec& layer) {
    norm(name + "attn.norm");
    std::visit([&](const auto& kind) { attention(name + "attn.", kind); }, layer.attention);
    if (spec_.branch_norms) norm(name + "attn.post_norm");
    if (spec_.residual != Residual::kParallel) norm(name + "mlp.norm");
    std::visit([&](const auto& kind) { mlp(name + "mlp.", kind); }, layer.mlp);
    if (spec_.branch_norms) norm(name + "mlp.post_norm");
  }

  void attention(const std::string& name, const Gqa& gqa) {
    const int64_t C = spec_.hidden_size, q_rows = gqa.heads * gqa.head_dim, kv_rows = gqa.kv_heads * gqa.head_dim;
    linear(name + "q", q_rows, C, gqa.qkv_bias);
    linear(name + "k", kv_rows, C, gqa.qkv_bias);
    linear(name + "v", kv_rows, C, gqa.qkv_bias);
    linear(name + "out", C, q_rows, gqa.out_bias);
    if (!gqa.qk_norm) return;
    add(name + "q_norm.weight", {gqa.head_dim});
    add(name + "k_norm.weight", {gqa.head_dim});
  }
  void attention(const std::string& name, const Mla& mla) {
    const int64_t C = spec_.hidden_size, q_rows = mla.heads * mla.qk_dim();
    if (mla.q_lora_rank == 0) {
      linear(name + "q", q_rows, C, false);
    } else {
      linear(name + "q_a", mla.q_lora_rank, C, mla.bias);
      add(name + "q_a_norm.weight", {mla.q_lora_rank});
      linear(name + "q_b", q_rows, mla.q_lora_rank, false);
    }
    linear(name + "kv_a", mla.cache_dim(), C, mla.bias);
    add(name + "kv_a_norm.weight", {mla.kv_lora_rank});
    linear(name + "kv_b", mla.heads * (mla.nope_dim + mla.v_dim), mla.kv_lora_rank, false);
    linear(name + "out", C, mla.heads * mla.v_dim, mla.bias);
  }

  void mlp(const std::string& name, const Glu& glu) {
    linear(name + "gate", glu.hidden, spec_.hidden_size, glu.bias);
    linear(name + "up", glu.hidden, spec_.hidden_size, glu.bias);
    linear(name + "down", spec_.hidden_size, glu.hidden, glu.bias);
  }
  void mlp(const std::string& name, const Mlp& mlp) {
    linear(name + "up", mlp.hidden, spec_.hidden_size, mlp.bias);
    linear(name + "down", spec_.hidden_size, mlp.hidden, mlp.bias);
  }
  void mlp(const std::string& name, const Moe& moe) {
    add(name + "router.weight", {moe.experts, spec_.hidden_size});
    if (moe.router.correction_bias) add(name + "router.correction_bias", {moe.experts});
    for (int64_t e = 0; e < moe.experts; ++e) mlp(fmt::format("{}experts.{}.", name, e), moe.expert);
    if (moe.shared.hidden > 0) mlp(name + "shared.", moe.shared);
    if (moe.shared_gate) add(name + "shared_gate.weight", {1, spec_.hidden_size});
  }

  const DecoderSpec& spec_;
  std::vector<TensorNeed> list_;
};

// `pattern` with its stars, if any, replaced by `layer` and `expert` in turn.
std::string filled_in(const std::string& pattern, int64_t layer, int64_t expert) {
  std::string out;
  int64_t next = layer;
  for (const char c : pattern) {
    if (c != '*') {
      out += c;
      continue;
    }
    out += fmt::to_string(next);
    next = expert;
  }
  return out;
}

using Needs = std::map<std::string, const TensorNeed*>;

int64_t groups_of(const DecoderSpec& spec) {
  const Gqa* gqa = std::get_if<Gqa>(&spec.layers.front().attention);
  return gqa ? gqa->kv_heads : 1;
}

FileTensor::Layout layout_of(Packing packing) {
  if (packing == Packing::kConcatColumns) return FileTensor::Layout::kColumns;
  if (packing == Packing::kHeadGroups) return FileTensor::Layout::kHeadGroups;
  return FileTensor::Layout::kRows;
}

// The file tensor that a row makes of one layer's parameter (".weight", ".bias", or "" where the row names whole
// tensors); no parts if nothing needs it.
FileTensor packed(const WeightRow& row, int64_t layer, int64_t expert, const std::string& parameter,
                  const Needs& needs) {
  FileTensor file{filled_in(row.file, layer, expert) + parameter, {}, {}, layout_of(row.packing)};
  for (const std::string& pattern : row.canonical) {
    const auto it = needs.find(filled_in(pattern, layer, expert) + parameter);
    if (it == needs.end()) continue;
    const Sizes& shape = it->second->shape;
    const int64_t begin = file.parts.empty() ? 0 : file.parts.back().end;
    file.parts.push_back({it->first, begin, begin + shape.front()});
    file.shape = shape;
    file.shape.front() = file.parts.back().end;
  }
  if (file.layout == FileTensor::Layout::kColumns) std::ranges::reverse(file.shape);
  MR_CHECK(file.parts.empty() || file.parts.size() == row.canonical.size(), "{} is only partly needed", file.name);
  return file;
}

int64_t most_experts(const DecoderSpec& spec) {
  int64_t most = 0;
  for (const LayerSpec& layer : spec.layers)
    if (const Moe* moe = std::get_if<Moe>(&layer.mlp)) most = std::max(most, moe->experts);
  return most;
}

// How many values a pattern's first and second star take.
struct Repeats {
  int64_t layers = 1, experts = 1;
};
Repeats repeats_of(const WeightRow& row, const DecoderSpec& spec) {
  const auto stars = std::ranges::count(row.file, '*');
  return {stars > 0 ? static_cast<int64_t>(spec.layers.size()) : 1, stars > 1 ? most_experts(spec) : 1};
}

}  // namespace

std::vector<TensorNeed> needed_tensors(const DecoderSpec& spec) { return NeedList(spec).make(); }

int64_t parameter_count(const DecoderSpec& spec) {
  int64_t total = 0;
  for (const TensorNeed& need : needed_tensors(spec)) {
    int64_t elements = 1;
    for (const int64_t size : need.shape) elements *= size;
    total += elements;
  }
  return total;
}

std::vector<FileTensor> file_tensors(const Family& family, const DecoderSpec& spec) {
  const std::vector<TensorNeed> list = needed_tensors(spec);
  Needs needs;
  for (const TensorNeed& need : list) needs[need.name] = &need;
  std::vector<FileTensor> out;
  size_t covered = 0;
  for (const WeightRow* row : weight_rows(family)) {
    const Repeats repeats = repeats_of(*row, spec);
    for (int64_t layer = 0; layer < repeats.layers; ++layer)
      for (int64_t expert = 0; expert < repeats.experts; ++expert)
        for (const char* parameter : {".weight", ".bias", ""}) {
          FileTensor file = packed(*row, layer, expert, parameter, needs);
          if (file.parts.empty()) continue;
          if (file.layout == FileTensor::Layout::kHeadGroups) file.groups = groups_of(spec);
          covered += file.parts.size();
          out.push_back(std::move(file));
        }
  }
  MR_CHECK(covered == list.size(), "family {} names {} of {} tensors", family.name, covered, list.size());
  return out;
}

bool is_next_token_tensor(const Family& family, const DecoderSpec& spec, std::string_view name) {
  for (const WeightRow* row : weight_rows(family)) {
    const size_t star = row->file.find('*');
    if (star == std::string::npos) continue;
    for (int64_t i = 0; i < spec.next_token_layers; ++i)
      if (name.starts_with(fmt::format("{}{}.", row->file.substr(0, star), spec.layers.size() + i))) return true;
  }
  return false;
}

std::string sizes_to_string(const Sizes& sizes) { return fmt::format("[{}]", fmt::join(sizes, ", ")); }

}  // namespace millrace
