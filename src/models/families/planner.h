// How much memory a model takes: parameters, bytes of its weights and of its KV cache in each precision, how many
// devices hold it and how long a sequence may be. Integer arithmetic on a DecoderSpec; any thread.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "models/families/spec.h"

namespace millrace {

// How the matrices inside the layers are stored. Everything else (embedding, lm_head, norms, biases, routers) takes
// four bytes an element in kFloat32 and two in the others.
enum class Precision : uint8_t {
  kFloat32,
  kBfloat16,  // float16 takes the same
  kInt8,      // an int8 per element, a float32 scale and an int32 sum per output row
  kInt4       // 68 bytes for every 128 columns of a row: the elements, and a float32 that is scale and zero point
};
inline constexpr Precision kPrecisions[] = {Precision::kFloat32, Precision::kBfloat16, Precision::kInt8,
                                            Precision::kInt4};
std::string_view precision_name(Precision precision);  // "float32", "bfloat16", "int8", "int4"
// What keys and values are kept in, by --kv-cache-dtype: activation_bytes, or integers, kInt8Dynamic with a float32 for
// each token and head.
enum class KvPrecision : uint8_t { kAuto, kInt8, kInt8Dynamic };
std::string_view kv_precision_name(KvPrecision kv);  // "auto", "int8", "int8-dynamic"
// Of what the layers hand each other, and of the KV cache as a rule: 4 in kFloat32, else 2.
int64_t activation_bytes(Precision precision);

// How tensor parallelism over n devices cuts a tensor.
enum class Cut : uint8_t {
  kWhole,    // every device holds all of it: norms, routers, positions, MLA's low-rank products into a latent
  kOutputs,  // a share of the rows: q, gate, up, embedding and lm_head by vocabulary
  kInputs,   // a share of the columns: attention's output product and down
  kKvHeads   // rows of whole key/value heads; with more devices than such heads, a head has several holders
};

// All tensors of one role, over all layers and experts.
struct WeightGroup {
  std::string role;  // "attn.q.weight", "embed.weight", ...
  Cut cut = Cut::kWhole;
  bool quantized = false;  // stored in eight or four bits where the precision says so
  int64_t tensors = 0, elements = 0;
  int64_t rows = 0, groups = 0;  // of all tensors together: output rows, and runs of 128 columns within them
};

struct ModelSize {
  std::vector<WeightGroup> groups;  // in the order in which a token meets them
  int64_t parameters = 0;
  int64_t active_parameters = 0;  // that one token is computed with: all but the experts it does not reach
};
ModelSize model_size(const DecoderSpec& spec);

// Bytes of all weights; with several devices, of those that one device holds. Requires can_split(spec, devices).
int64_t weight_bytes(const DecoderSpec& spec, const ModelSize& size, Precision precision, int64_t devices = 1);
// Bytes of one token's keys and values (or latents) over all layers, on one of `devices` devices; head_bytes come with
// the keys of each head, and with its values.
int64_t kv_bytes_per_token(const DecoderSpec& spec, int64_t element_bytes, int64_t devices = 1, int64_t head_bytes = 0);
// Of a block of so many tokens: where a layer's keys or values would be whole pages, they are a line longer
// (kernels/kv_layout.h).
int64_t kv_block_bytes(const DecoderSpec& spec, int64_t bytes_per_token, int64_t block_size);

// Whether `devices` can share the model evenly: they divide the query heads and the width of the feed-forward parts,
// and either divide the key/value heads or are divided by them.
bool can_split(const DecoderSpec& spec, int64_t devices);

// Beside weights and KV cache: activations, tokenizer, buffers.
inline constexpr int64_t kRuntimeBytes = int64_t{256} << 20;
// What a device's memory leaves for the KV cache; negative if the weights alone are too much.
int64_t cache_budget_bytes(int64_t memory_bytes, double utilization, int64_t weight_bytes);

struct PlanRequest {
  int64_t memory_bytes = 0;   // of one device
  double utilization = 0.92;  // gpu-memory-utilization
  int64_t devices = 0;        // at most; 0: the fewest that do
  int64_t max_model_len = 0;  // length that must fit; 0: 4096 or what the checkpoint promises, if that is less
  int64_t block_size = 16;    // tokens of a KV block
  KvPrecision kv = KvPrecision::kAuto;
};
inline constexpr int64_t kDefaultLength = 4096, kMostDevices = 1024;

// One model in one precision on the asked-for devices.
struct PrecisionPlan {
  Precision precision = Precision::kBfloat16;
  int64_t weight_bytes = 0;        // all of them, on one device
  int64_t kv_bytes_per_token = 0;  // likewise
  int64_t fewest_devices = 0;      // that hold the weights and one sequence of the wanted length; 0: no number does
  int64_t devices = 0;             // that the rest is about: the fewest, or the most of those offered that divide the
                                   // model; 0: it does not fit
  int64_t device_weight_bytes = 0, device_kv_bytes_per_token = 0, device_kv_block_bytes = 0,
          cache_bytes = 0;    // of one device
  int64_t cache_tokens = 0;   // that the cache holds, in whole blocks
  int64_t max_model_len = 0;  // longest sequence; 0: none fits
};

struct ModelPlan {
  ModelSize size;
  int64_t wanted_length = 0;
  std::vector<PrecisionPlan> precisions;  // in the order of kPrecisions
};
// Errors: kInvalidArgument for a wanted length beyond the checkpoint's, kUnimplemented for latents of integers.
Result<ModelPlan> plan_model(const DecoderSpec& spec, const PlanRequest& request);

}  // namespace millrace
