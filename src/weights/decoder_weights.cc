#include "weights/decoder_weights.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "base/log.h"
#include "base/text.h"
#include "models/families/families.h"
#include "models/families/names.h"
#include "weights/kv_scales.h"
#include "weights/quantized_module.h"

namespace millrace {
namespace {

constexpr const char* kHead = "lm_head.weight";

std::string wants(const Family& family, const FileTensor& wanted) {
  return fmt::format("family {} wants {}", family.name, sizes_to_string(wanted.shape));
}

// The names of `files` as this checkpoint spells them: without the family's optional prefix where no tensor has it.
void drop_optional_prefix(const Checkpoint& checkpoint, const Family& family, std::vector<FileTensor>& files) {
  const std::string& prefix = family.optional_prefix;
  const auto has_prefix = [&](const std::string& name) { return name.starts_with(prefix); };
  if (prefix.empty() || std::ranges::any_of(checkpoint.names(), has_prefix)) return;
  for (FileTensor& file : files)
    if (has_prefix(file.name)) file.name.erase(0, prefix.size());
}

// A contiguous file tensor as [groups, rows of one group, ...].
Tensor by_groups(const Tensor& tensor, int64_t groups) {
  std::vector<int64_t> sizes = {groups, tensor.size(0) / groups};
  for (int axis = 1; axis < tensor.rank(); ++axis) sizes.push_back(tensor.size(axis));
  return tensor.reshaped(Shape(sizes));
}

// The part's elements of a contiguous file tensor, in place: [rows, ...], or [groups, rows / groups, ...].
Tensor part_of(const FileTensor& file, const FileTensor::Part& part, const Tensor& tensor) {
  switch (file.layout) {
    case FileTensor::Layout::kRows:
      break;
    case FileTensor::Layout::kColumns:
      if (tensor.rank() < 2) break;
      return tensor.transposed(0, 1).rows(part.begin, part.end);
    case FileTensor::Layout::kHeadGroups:
      return by_groups(tensor, file.groups)
          .transposed(0, 1)
          .rows(part.begin / file.groups, part.end / file.groups)
          .transposed(0, 1);
  }
  return file.parts.size() == 1 ? tensor : tensor.rows(part.begin, part.end);
}

// The file's tensor, of the right shape and contiguous.
Result<Tensor> read_file_tensor(const Checkpoint& checkpoint, const Family& family, const FileTensor& wanted) {
  if (!checkpoint.has(wanted.name))
    return not_found("{}: missing from the weights; {}", wanted.name, wants(family, wanted));
  MR_ASSIGN_OR_RETURN(const Tensor tensor, checkpoint.stored(wanted.name));
  if (!std::ranges::equal(tensor.shape().sizes(), wanted.shape))
    return data_loss("{}: the file has {}, {}", wanted.name, tensor.shape().to_string(), wants(family, wanted));
  if (!is_floating(tensor.dtype()))
    return unimplemented("{}: the file has {} elements; floating-point ones are wanted", wanted.name,
                         dtype_name(tensor.dtype()));
  return tensor.contiguous() ? tensor : tensor.to_contiguous();
}

// Whether a tied checkpoint may hold this tensor beside what it needs: the head, as large as the embeddings.
Status check_tied_head(const Checkpoint& checkpoint, const DecoderSpec& spec, const DecoderWeights& weights) {
  MR_ASSIGN_OR_RETURN(const Tensor head, checkpoint.stored(kHead));
  const Tensor& embed = weights.at("embed.weight");
  if (!(head.shape() == embed.shape()))
    return data_loss("{}: the file has {}, but the embeddings it is tied to have {}", kHead, head.shape().to_string(),
                     embed.shape().to_string());
  const Tensor first = head.rows(0, 1).to_contiguous();
  if (head.dtype() != embed.dtype() || std::memcmp(first.raw(), embed.raw(), static_cast<size_t>(first.bytes())) != 0)
    warn_once("tied-head", fmt::format("{} differs from the embeddings although tie_word_embeddings is true; the "
                                       "embeddings are used, as the reference does ({} ids)",
                                       kHead, spec.vocab_size));
  return {};
}

Status check_nothing_left(const Checkpoint& checkpoint, const Family& family, const DecoderSpec& spec,
                          const std::set<std::string>& used, const DecoderWeights& weights) {
  std::vector<std::string> left;
  for (const std::string& name : checkpoint.names()) {
    if (used.contains(name) || is_harmless_tensor(family, name) || is_next_token_tensor(family, spec, name) ||
        is_kv_scale_tensor(name))
      continue;
    if (name == kHead && spec.tie_word_embeddings) {
      MR_RETURN_IF_ERROR(check_tied_head(checkpoint, spec, weights));
      continue;
    }
    left.push_back(name);
  }
  if (left.empty()) return {};
  return unimplemented("{}: in the file, but family {} has no such tensor with this config.json{}", left.front(),
                       family.name, left.size() > 1 ? fmt::format(" ({} more are left over)", left.size() - 1) : "");
}

Status check_all_present(const Checkpoint& checkpoint, const Family& family, const std::vector<FileTensor>& files) {
  std::vector<const FileTensor*> missing;
  for (const FileTensor& file : files)
    if (!checkpoint.has(file.name)) missing.push_back(&file);
  if (missing.empty()) return {};
  std::string message =
      fmt::format("{}: missing from the weights; {}", missing.front()->name, wants(family, *missing.front()));
  if (missing.size() > 1) message += fmt::format(" ({} more of {} are missing)", missing.size() - 1, files.size());
  message += did_you_mean(missing.front()->name, checkpoint.names());
  return not_found("{}", message);
}

// Rows of a file's matrix that are the part's.
QuantizedMatrix part_of(const FileTensor& file, const FileTensor::Part& part, const QuantizedMatrix& matrix) {
  if (file.parts.size() == 1) return matrix;
  if (file.layout == FileTensor::Layout::kRows) return row_range(matrix, part.begin, part.end);
  const int64_t run = file.shape[0] / file.groups, first = part.begin / file.groups, last = part.end / file.groups;
  std::vector<int64_t> rows;
  for (int64_t g = 0; g < file.groups; ++g)
    for (int64_t row = first; row < last; ++row) rows.push_back(g * run + row);
  return picked_rows(matrix, rows);
}

// Matrices that a quantised checkpoint stores as integers unless it says otherwise.
bool is_layer_matrix(const FileTensor& file) {
  const std::string& name = file.parts.front().canonical;
  return file.shape.size() == 2 && name.starts_with("layers.") && name.ends_with(".weight") &&
         name.find(".mlp.router") == std::string::npos && name.find("shared_gate") == std::string::npos;
}

// Whether the norm in front of this matrix emits int8 units (SmoothQuant).
bool takes_int8_units(const QuantizationConfig& config, const std::string& canonical) {
  const auto ends = [&](const char* end) { return canonical.ends_with(end); };
  return (config.static_qkv && (ends("attn.q.weight") || ends("attn.k.weight") || ends("attn.v.weight"))) ||
         (config.static_gate_up && (ends("mlp.gate.weight") || ends("mlp.up.weight")));
}

Status check_whole(const Checkpoint& checkpoint, const QuantizationConfig& config, const FileTensor& file,
                   std::string_view module) {
  if (!is_layer_matrix(file) || config.may_be_dense(module) || !checkpoint.has(file.name)) return {};
  return data_loss(
      "{}: is not quantised although {} says {} and does not leave it out; the checkpoint is half converted", file.name,
      config.source, method_name(config.method));
}

// Moves the files that hold integers to `quantized`; the names of their tensors go to `used`.
Status take_quantized(const Checkpoint& checkpoint, const QuantizationConfig& config, std::vector<FileTensor>& files,
                      QuantizedWeights& quantized, std::set<std::string>& used) {
  std::vector<FileTensor> dense;
  for (FileTensor& file : files) {
    if (file.shape.size() != 2 || !file.name.ends_with(".weight") || file.layout == FileTensor::Layout::kColumns) {
      dense.push_back(std::move(file));
      continue;
    }
    const std::string module = file.name.substr(0, file.name.size() - 7);
    MR_ASSIGN_OR_RETURN(const auto found,
                        read_quantized_module(checkpoint, config, module, file.shape[0], file.shape[1],
                                              takes_int8_units(config, file.parts.front().canonical)));
    if (!found) {
      MR_RETURN_IF_ERROR(check_whole(checkpoint, config, file, module));
      dense.push_back(std::move(file));
      continue;
    }
    for (const FileTensor::Part& part : file.parts) quantized[part.canonical] = part_of(file, part, found->matrix);
    used.insert(found->tensors.begin(), found->tensors.end());
  }
  files = std::move(dense);
  return {};
}

const Family& family_of(const DecoderSpec& spec) {
  const Family* family = find_family(spec.family);
  MR_CHECK(family != nullptr, "no family '{}'", spec.family);
  return *family;
}

// The shape of a part as a canonical tensor.
Sizes part_shape(const FileTensor& file, const FileTensor::Part& part) {
  Sizes shape = file.shape;
  if (file.layout == FileTensor::Layout::kColumns) std::ranges::reverse(shape);
  shape.front() = part.end - part.begin;
  return shape;
}

Result<Tensor> find_part(const FileTensor& file, const FileTensor::Part& part, const DecoderWeights& weights) {
  const auto it = weights.find(part.canonical);
  if (it == weights.end()) return invalid_argument("{}: missing from the weights to be saved", part.canonical);
  const Sizes want = part_shape(file, part);
  if (holds_shape(it->second, Shape(want))) return contiguous_as(it->second, Shape(want));
  return invalid_argument("{}: has {}, the spec wants {}", part.canonical, it->second.shape().to_string(),
                          sizes_to_string(want));
}

// Parts that do not follow one another in the file, put into one tensor.
Tensor interleave(const FileTensor& file, const std::vector<Tensor>& pieces) {
  Tensor whole = Tensor::empty(pieces.front().dtype(), Shape(file.shape));
  for (size_t i = 0; i < pieces.size(); ++i) {
    Tensor place = part_of(file, file.parts[i], whole);
    if (place.rank() > pieces[i].rank())
      copy_elements(by_groups(pieces[i], file.groups), place);
    else
      copy_elements(pieces[i], place);
  }
  return whole;
}

// The canonical tensors that one file tensor is made of, their shapes checked.
Result<NamedTensor> pack(const FileTensor& file, const DecoderWeights& weights) {
  NamedTensor out{file.name, {}};
  for (const FileTensor::Part& part : file.parts) {
    MR_ASSIGN_OR_RETURN(const Tensor tensor, find_part(file, part, weights));
    if (!out.pieces.empty() && out.pieces.front().dtype() != tensor.dtype())
      return invalid_argument("{}: is {}, but its neighbour in {} is {}", part.canonical, dtype_name(tensor.dtype()),
                              file.name, dtype_name(out.pieces.front().dtype()));
    out.pieces.push_back(tensor);
  }
  if (file.layout != FileTensor::Layout::kRows) out.pieces = {interleave(file, out.pieces)};
  return out;
}

}  // namespace

Result<DecoderWeights> load_decoder_weights(const Checkpoint& checkpoint, const DecoderSpec& spec) {
  return load_decoder_weights(checkpoint, family_of(spec), spec);
}

Result<DecoderWeights> load_decoder_weights(const Checkpoint& checkpoint, const Family& family, const DecoderSpec& spec,
                                            const QuantizationConfig& config, QuantizedWeights* quantized) {
  std::vector<FileTensor> files = file_tensors(family, spec);
  drop_optional_prefix(checkpoint, family, files);
  std::set<std::string> used;
  if (config.method != QuantizationConfig::Method::kNone && quantized)
    MR_RETURN_IF_ERROR(take_quantized(checkpoint, config, files, *quantized, used));
  MR_RETURN_IF_ERROR(check_all_present(checkpoint, family, files));
  DecoderWeights weights;
  for (const FileTensor& file : files) {
    MR_ASSIGN_OR_RETURN(const Tensor tensor, read_file_tensor(checkpoint, family, file));
    for (const FileTensor::Part& part : file.parts) weights[part.canonical] = part_of(file, part, tensor);
    used.insert(file.name);
  }
  MR_RETURN_IF_ERROR(check_nothing_left(checkpoint, family, spec, used, weights));
  return weights;
}

Status save_decoder_weights(const std::string& folder, const DecoderSpec& spec, const DecoderWeights& weights,
                            const ShardOptions& options) {
  return save_decoder_weights(folder, family_of(spec), spec, weights, options);
}

Status save_decoder_weights(const std::string& folder, const Family& family, const DecoderSpec& spec,
                            const DecoderWeights& weights, const ShardOptions& options) {
  std::vector<NamedTensor> tensors;
  for (const FileTensor& file : file_tensors(family, spec)) {
    MR_ASSIGN_OR_RETURN(NamedTensor tensor, pack(file, weights));
    tensors.push_back(std::move(tensor));
  }
  return write_checkpoint(folder, tensors, options);
}

}  // namespace millrace
