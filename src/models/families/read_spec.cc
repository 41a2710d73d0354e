#include "models/families/read_spec.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "models/families/config_fields.h"
#include "models/families/families.h"
#include "models/families/read_layers.h"
#include "models/families/rope_config.h"

namespace millrace {
namespace {

constexpr int64_t kMaxVocab = int64_t{1} << 28;

Status read_dtype(const ConfigFields& fields, SpecReading& out) {
  const ConfigFields::Entry* entry = fields.find(Field::kDType);
  if (!entry) return {};
  std::optional<DType> dtype;
  if (entry->value.is_string()) dtype = dtype_from_name(entry->value.get<std::string>());
  if (!dtype || !is_floating(*dtype))
    return unimplemented("{} is {}; it must be float32, float16 or bfloat16", entry->name, json_excerpt(entry->value));
  out.spec.dtype = *dtype;
  out.dtype_stated = true;
  return {};
}

Status read_end_tokens(const ConfigFields& fields, DecoderSpec& spec) {
  const ConfigFields::Entry* eos = fields.find(Field::kEosTokens);
  MR_ASSIGN_OR_RETURN(spec.eos_token_ids, read_token_ids(eos ? eos->value : Json(), fields.name(Field::kEosTokens)));
  const ConfigFields::Entry* bos = fields.find(Field::kBosToken);
  MR_ASSIGN_OR_RETURN(const auto ids, read_token_ids(bos ? bos->value : Json(), fields.name(Field::kBosToken)));
  spec.bos_token_id = ids.empty() ? -1 : ids.front();
  return {};
}

// Norms, residuals and the model's ends.
Status read_frame(const ConfigFields& fields, DecoderSpec& spec) {
  MR_ASSIGN_OR_RETURN(const size_t norm, fields.choice(Field::kNormKind, {"rms", "layer"}, 0));
  spec.norm = norm == 0 ? NormKind::kRms : NormKind::kLayer;
  MR_ASSIGN_OR_RETURN(spec.norm_eps, fields.number_above(Field::kNormEps, 0));
  MR_ASSIGN_OR_RETURN(spec.norm_bias, fields.flag(Field::kNormBias, false));
  MR_ASSIGN_OR_RETURN(spec.norm_plus_one, fields.flag(Field::kNormPlusOne, false));
  MR_ASSIGN_OR_RETURN(spec.branch_norms, fields.flag(Field::kBranchNorms, false));
  MR_ASSIGN_OR_RETURN(const size_t residual,
                      fields.choice(Field::kResidual, {"sequential", "parallel", "parallel_two_norms"}, 0));
  spec.residual = static_cast<Residual>(residual);
  MR_ASSIGN_OR_RETURN(spec.tie_word_embeddings, fields.flag(Field::kTieEmbeddings, false));
  MR_ASSIGN_OR_RETURN(spec.normalized_head, fields.flag(Field::kNormalizedHead, false));
  MR_ASSIGN_OR_RETURN(spec.final_logit_soft_cap, fields.number_above(Field::kFinalSoftCap, 0, 0));
  MR_ASSIGN_OR_RETURN(spec.next_token_layers, fields.size(Field::kNextTokenLayers, 1024, 0, 0));
  const ConfigFields::Entry* scale = fields.find(Field::kEmbeddingScale);
  if (scale && scale->value == "sqrt(hidden_size)") {
    spec.embedding_scale = std::sqrt(static_cast<double>(spec.hidden_size));
  } else {
    MR_ASSIGN_OR_RETURN(spec.embedding_scale, fields.number_above(Field::kEmbeddingScale, 0, 1));
  }
  if (spec.tie_word_embeddings && spec.normalized_head)
    return unimplemented("{} is true: this family normalises its head, which cannot be the embedding as well",
                         fields.name(Field::kTieEmbeddings));
  return {};
}

// Elements of each head that turn.
Result<int64_t> rotated_dims(const ConfigFields& fields, const DecoderSpec& spec) {
  if (const Mla* mla = std::get_if<Mla>(&spec.layers.front().attention)) return mla->rope_dim;
  const Gqa& gqa = std::get<Gqa>(spec.layers.front().attention);
  if (gqa.alibi != Alibi::kNone || spec.learned_positions > 0) return 0;
  MR_ASSIGN_OR_RETURN(const double fraction, fields.number_above(Field::kRotaryFraction, 0, 1));
  const auto dims = static_cast<int64_t>(static_cast<double>(gqa.head_dim) * fraction);
  if (fraction <= 1 && dims >= 2 && dims % 2 == 0) return dims;
  return invalid_argument("{} is {}: of heads of {} elements an even number from 2 on must turn",
                          fields.name(Field::kRotaryFraction), fraction, gqa.head_dim);
}

// Theta that grows with the length (Qwen 1). Where neither it nor the queries do, the trained length is the longest.
Status read_dynamic_ntk(const ConfigFields& fields, DecoderSpec& spec) {
  MR_ASSIGN_OR_RETURN(const bool dynamic, fields.flag(Field::kDynamicNtk, false));
  if (!fields.find(Field::kTrainedLength)) return {};
  MR_ASSIGN_OR_RETURN(const int64_t trained, fields.size(Field::kTrainedLength, kMaxPositions));
  MR_ASSIGN_OR_RETURN(const bool logn, fields.flag(Field::kLognAttention, false));
  if (!dynamic) {
    if (!logn) spec.max_positions = std::min(spec.max_positions, trained);
    return {};
  }
  if (spec.rope.scaling != Rope::Scaling::kNone || spec.rope.dims < 4) return {};
  spec.rope.scaling = Rope::Scaling::kQwenNtk;
  spec.rope.original_max_positions = trained;
  spec.max_positions = std::max(spec.max_positions, trained);
  return {};
}

Result<RopeRequest> rope_request(const ConfigFields& fields, const SpecOptions& options, const DecoderSpec& spec) {
  RopeRequest request;
  MR_ASSIGN_OR_RETURN(request.dims, rotated_dims(fields, spec));
  MR_ASSIGN_OR_RETURN(request.max_position_embeddings, fields.size(Field::kMaxPositions, kMaxPositions));
  MR_ASSIGN_OR_RETURN(request.theta, fields.number_above(Field::kRopeTheta, 1, 10000));
  MR_ASSIGN_OR_RETURN(const double factor, fields.number_above(Field::kRopeThetaFactor, 0, 1));
  request.theta *= factor;
  MR_ASSIGN_OR_RETURN(request.rotary_fraction, fields.number_above(Field::kRotaryFraction, 0, 1));
  MR_ASSIGN_OR_RETURN(request.longrope_switches, fields.flag(Field::kLongRopeSwitches, false));
  MR_ASSIGN_OR_RETURN(request.yarn_stated_length, fields.flag(Field::kYarnStatedLength, false));
  MR_ASSIGN_OR_RETURN(request.yarn_score_scale, fields.flag(Field::kYarnScoreScale, false));
  request.theta_stated = fields.stated(Field::kRopeTheta);
  request.scaling_override = options.rope_scaling ? &*options.rope_scaling : nullptr;
  request.theta_override = options.rope_theta;
  return request;
}

// Models without a rotation have no scaling of one either.
Status refuse_rope(const Json& config, const SpecOptions& options, const std::string& family) {
  for (const char* key : {"rope_scaling", "rope_parameters"})
    if (const auto it = config.find(key); it != config.end() && !it->is_null())
      return unimplemented("config.json: {} is {}: positions of family {} do not turn", key, json_excerpt(*it), family);
  if (!options.rope_scaling && !options.rope_theta) return {};
  return invalid_argument("--{}: positions of family {} do not turn",
                          options.rope_theta ? "rope-theta" : "rope-scaling", family);
}

Status read_rotation(const Json& config, const ConfigFields& fields, const RopeRequest& request, SpecReading& out) {
  DecoderSpec& spec = out.spec;
  MR_ASSIGN_OR_RETURN(RopeReading reading, read_rope(config, request));
  MR_ASSIGN_OR_RETURN(const bool interleaved, fields.flag(Field::kRopeInterleaved, false));
  spec.rope = std::move(reading.rope);
  spec.rope.layout = interleaved ? Rope::Layout::kInterleaved : Rope::Layout::kHalves;
  spec.max_positions = reading.max_positions;
  spec.length_unbounded = reading.length_unbounded;
  for (LayerSpec& layer : spec.layers)
    if (Mla* mla = std::get_if<Mla>(&layer.attention)) mla->scale *= reading.score_scale;
  out.unknown_keys = std::move(reading.unknown_keys);
  out.notes.insert(out.notes.end(), reading.notes.begin(), reading.notes.end());
  return read_dynamic_ntk(fields, spec);
}

Status read_positions(const Json& config, const ConfigFields& fields, const SpecOptions& options, SpecReading& out) {
  DecoderSpec& spec = out.spec;
  MR_ASSIGN_OR_RETURN(spec.max_positions, fields.size(Field::kMaxPositions, kMaxPositions));
  MR_ASSIGN_OR_RETURN(const bool learned, fields.flag(Field::kLearnedPositions, false));
  if (learned) spec.learned_positions = spec.max_positions;
  MR_ASSIGN_OR_RETURN(const RopeRequest request, rope_request(fields, options, spec));
  if (request.dims == 0) return refuse_rope(config, options, spec.family);
  return read_rotation(config, fields, request, out);
}

Status refuse_keys(const Json& config, const Family& family, const std::set<std::string>& mapped) {
  for (const RefusedRow* row : refused_rows(family)) {
    const auto it = config.find(row->key);
    if (it == config.end() || it->is_null() || mapped.contains(row->key) || is_harmless_key(family, row->key)) continue;
    if (std::ranges::find(row->neutral, *it) != row->neutral.end()) continue;
    return unimplemented("config.json: {} is {}: {}", row->key, json_excerpt(*it), row->reason);
  }
  return {};
}

std::set<std::string> mapped_keys(const Family& family) {
  std::set<std::string> keys = {"rope_scaling", "rope_parameters", "original_max_position_embeddings"};
  for (const ConfigRow* row : config_rows(family)) keys.insert(row->key);
  for (const RefusedRow* row : refused_rows(family)) keys.insert(row->key);
  return keys;
}

void collect_unknown_keys(const Json& config, const Family& family, SpecReading& out) {
  const std::set<std::string> mapped = mapped_keys(family);
  for (const auto& [key, value] : config.items())
    if (!mapped.contains(key) && !is_harmless_key(family, key)) out.unknown_keys.push_back(key);
}

std::set<std::string> config_keys(const Family& family) {
  std::set<std::string> keys;
  for (const ConfigRow* row : config_rows(family)) keys.insert(row->key);
  return keys;
}

}  // namespace

Result<std::vector<int32_t>> read_token_ids(const Json& value, const std::string& where) {
  std::vector<int32_t> ids;
  if (value.is_null()) return ids;
  if (value.is_array() && value.size() > 10'000)
    return invalid_argument("{} lists {} ids; at most 10000 are read", where, value.size());
  for (const Json& id : value.is_array() ? value : Json::array({value})) {
    if (!id.is_number_integer() || id.get<double>() < 0 || id.get<double>() >= static_cast<double>(kMaxVocab))
      return invalid_argument("{} is {}; it must be a token id, a list of token ids or null", where,
                              json_excerpt(value));
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

Result<SpecReading> read_spec(const Json& config, const SpecOptions& options) {
  SpecReading out;
  DecoderSpec& spec = out.spec;
  MR_ASSIGN_OR_RETURN(out.family, family_of_config(config, &spec.architecture));
  spec.family = out.family->name;
  MR_RETURN_IF_ERROR(refuse_keys(config, *out.family, config_keys(*out.family)));
  MR_ASSIGN_OR_RETURN(const ConfigFields fields, ConfigFields::read(config, *out.family));
  MR_ASSIGN_OR_RETURN(spec.vocab_size, fields.size(Field::kVocabSize, kMaxVocab));
  MR_ASSIGN_OR_RETURN(spec.hidden_size, fields.size(Field::kHiddenSize, kMaxHiddenSize));
  MR_ASSIGN_OR_RETURN(spec.layers, read_layers(fields, spec, out.notes));
  MR_RETURN_IF_ERROR(read_positions(config, fields, options, out));
  MR_RETURN_IF_ERROR(read_frame(fields, spec));
  MR_RETURN_IF_ERROR(read_dtype(fields, out));
  MR_RETURN_IF_ERROR(read_end_tokens(fields, spec));
  collect_unknown_keys(config, *out.family, out);
  return out;
}

}  // namespace millrace
