#include "models/families/names.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>

#include "base/check.h"
#include "models/families/families.h"

namespace millrace {
namespace {

void add_linear(std::vector<TensorNeed>& out, const std::string& name, int64_t rows, int64_t columns, bool bias) {
  out.push_back({name + ".weight", {rows, columns}});
  if (bias) out.push_back({name + ".bias", {rows}});
}

void add_attention(std::vector<TensorNeed>& out, const std::string& layer, const Gqa& gqa, int64_t hidden_size) {
  const int64_t q_rows = gqa.heads * gqa.head_dim, kv_rows = gqa.kv_heads * gqa.head_dim;
  add_linear(out, layer + "attn.q", q_rows, hidden_size, gqa.qkv_bias);
  add_linear(out, layer + "attn.k", kv_rows, hidden_size, gqa.qkv_bias);
  add_linear(out, layer + "attn.v", kv_rows, hidden_size, gqa.qkv_bias);
  add_linear(out, layer + "attn.out", hidden_size, q_rows, gqa.out_bias);
}

void add_mlp(std::vector<TensorNeed>& out, const std::string& layer, const Glu& glu, int64_t hidden_size) {
  add_linear(out, layer + "mlp.gate", glu.hidden, hidden_size, glu.bias);
  add_linear(out, layer + "mlp.up", glu.hidden, hidden_size, glu.bias);
  add_linear(out, layer + "mlp.down", hidden_size, glu.hidden, glu.bias);
}

// `pattern` with its star, if any, replaced by `layer`.
std::string for_layer(const std::string& pattern, int64_t layer) {
  const size_t star = pattern.find('*');
  if (star == std::string::npos) return pattern;
  return fmt::format("{}{}{}", pattern.substr(0, star), layer, pattern.substr(star + 1));
}

using Needs = std::map<std::string, const TensorNeed*>;

// The file tensor that a row makes of one layer's parameter (".weight" or ".bias"); no parts if nothing needs it.
FileTensor packed(const WeightRow& row, int64_t layer, const std::string& parameter, const Needs& needs) {
  FileTensor file{for_layer(row.file, layer) + parameter, {}, {}};
  for (const std::string& pattern : row.canonical) {
    const auto it = needs.find(for_layer(pattern, layer) + parameter);
    if (it == needs.end()) continue;
    const Sizes& shape = it->second->shape;
    const int64_t begin = file.parts.empty() ? 0 : file.parts.back().end;
    file.parts.push_back({it->first, begin, begin + shape.front()});
    file.shape = shape;
    file.shape.front() = file.parts.back().end;
  }
  MR_CHECK(file.parts.empty() || file.parts.size() == row.canonical.size(), "{} is only partly needed", file.name);
  return file;
}

}  // namespace

std::vector<TensorNeed> needed_tensors(const DecoderSpec& spec) {
  const int64_t C = spec.hidden_size;
  std::vector<TensorNeed> out = {{"embed.weight", {spec.vocab_size, C}}};
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const std::string layer = fmt::format("layers.{}.", i);
    out.push_back({layer + "attn.norm.weight", {C}});
    add_attention(out, layer, std::get<Gqa>(spec.layers[i].attention), C);
    out.push_back({layer + "mlp.norm.weight", {C}});
    add_mlp(out, layer, std::get<Glu>(spec.layers[i].mlp), C);
  }
  out.push_back({"final_norm.weight", {C}});
  if (!spec.tie_word_embeddings) out.push_back({"lm_head.weight", {spec.vocab_size, C}});
  return out;
}

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
    const bool per_layer = row->file.find('*') != std::string::npos;
    for (int64_t layer = 0, n = per_layer ? static_cast<int64_t>(spec.layers.size()) : 1; layer < n; ++layer)
      for (const char* parameter : {".weight", ".bias"}) {
        FileTensor file = packed(*row, layer, parameter, needs);
        if (file.parts.empty()) continue;
        covered += file.parts.size();
        out.push_back(std::move(file));
      }
  }
  MR_CHECK(covered == list.size(), "family {} names {} of {} tensors", family.name, covered, list.size());
  return out;
}

std::string sizes_to_string(const Sizes& sizes) { return fmt::format("[{}]", fmt::join(sizes, ", ")); }

}  // namespace millrace
