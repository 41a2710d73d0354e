// The layers of a decoder from the fields of a config.json: attention, feed-forward part, experts. Any thread.
#pragma once
#include <string>
#include <vector>

#include "base/result.h"
#include "models/families/config_fields.h"
#include "models/families/spec.h"

namespace millrace {

// Bounds on sizes: far above any model, and low enough that the bytes of all tensors fit 63 bits.
constexpr int64_t kMaxHiddenSize = int64_t{1} << 20, kMaxLayers = 10'000, kMaxPositions = 0x7fffffff;

// Requires spec.hidden_size. Mla::scale is left at 1 / sqrt(qk_dim()); rope may multiply it.
// `notes` receives sentences the user should see once.
Result<std::vector<LayerSpec>> read_layers(const ConfigFields& fields, const DecoderSpec& spec,
                                           std::vector<std::string>& notes);

}  // namespace millrace
