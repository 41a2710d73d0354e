// Prefill and decode of a whole decoder with random weights, in one run beside what bounds them: the machine's matrix
// peak and memory bandwidth, and bare oneDNN matmuls of the same shapes. Prints medians.
//   bench_decoder [--config FOLDER_OR_PRESET] [--dtype bfloat16] [--prefill 512] [--context 512] [--rounds 5]
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <oneapi/dnnl/dnnl.hpp>

#include "base/cpu.h"
#include "base/random.h"
#include "base/text.h"
#include "kernels/machine.h"
#include "kernels/parallel.h"
#include "models/decoder.h"
#include "models/families/names.h"

namespace millrace {
namespace {

using Clock = std::chrono::steady_clock;

struct ModelShape {
  const char* name;
  int64_t layers, hidden, heads, kv_heads, head_dim, mlp, vocab;
  bool qkv_bias;
};
// Published shapes; both tie their embeddings.
constexpr ModelShape kShapes[] = {
    {"llama-3.2-1b", 16, 2048, 32, 8, 64, 8192, 128256, false},
    {"qwen2.5-0.5b", 24, 896, 14, 2, 64, 4864, 151936, true},
};

DecoderSpec spec_of(const ModelShape& shape) {
  DecoderSpec spec;
  spec.family = shape.name;
  spec.vocab_size = shape.vocab;
  spec.hidden_size = shape.hidden;
  spec.max_positions = 32768;
  spec.rope = {.theta = 500000, .dims = shape.head_dim};
  spec.tie_word_embeddings = true;
  const Gqa gqa{
      .heads = shape.heads, .kv_heads = shape.kv_heads, .head_dim = shape.head_dim, .qkv_bias = shape.qkv_bias};
  spec.layers.assign(shape.layers, LayerSpec{gqa, Glu{.hidden = shape.mlp}});
  return spec;
}

// bf16 values around zero; cheap, since only the speed matters here.
void fill_random(bf16* values, int64_t n, uint64_t seed) {
  parallel_ranges(n, 1 << 16, [&](int64_t begin, int64_t end) {
    uint64_t state = seed * 0x9E3779B97F4A7C15u + static_cast<uint64_t>(begin) + 1;
    for (int64_t i = begin; i < end; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      values[i] = to_bf16(static_cast<float>(static_cast<int32_t>(state >> 32)) * 0x1p-31f * 0.03f);
    }
  });
}

Tensor random_weight(const Sizes& sizes, uint64_t seed) {
  Tensor tensor = Tensor::empty(DType::kBf16, Shape(sizes));
  fill_random(tensor.data<bf16>(), tensor.numel(), seed);
  return tensor;
}

std::unique_ptr<Decoder> make_decoder(const DecoderSpec& spec, DType dtype, int64_t context) {
  std::map<std::string, Tensor> weights;
  uint64_t seed = 0;
  for (const TensorNeed& need : needed_tensors(spec)) weights[need.name] = random_weight(need.shape, ++seed);
  Result<std::unique_ptr<Decoder>> decoder =
      Decoder::create(spec, std::move(weights), {.dtype = dtype, .max_context = context + 64});
  MR_CHECK(decoder.ok(), "{}", decoder.status().message());
  return std::move(*decoder);
}

// One sequence's tokens [begin, end), the last row wanted.
Batch one_sequence(int64_t begin, int64_t end, int64_t vocab, int64_t blocks) {
  Batch batch;
  batch.clear();
  Random random(static_cast<uint64_t>(begin) + 5);
  for (int64_t i = begin; i < end; ++i) {
    batch.tokens.push_back(static_cast<int32_t>(random.below(static_cast<uint32_t>(vocab))));
    batch.positions.push_back(static_cast<int32_t>(i));
  }
  batch.query_start = {0, static_cast<int32_t>(end - begin)};
  batch.context_len = {static_cast<int32_t>(end)};
  batch.rope_len = {static_cast<int32_t>(end)};
  batch.max_blocks = static_cast<int32_t>(blocks);
  for (int32_t b = 0; b < blocks; ++b) batch.block_table.push_back(b);
  batch.logit_rows = {static_cast<int32_t>(end - begin - 1)};
  return batch;
}

template <class Body>
double seconds_of(Body&& body) {
  const Clock::time_point start = Clock::now();
  body();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// One layer's matmuls and the head, as plain oneDNN primitives with weights in the layout oneDNN prefers.
class BareMatmuls {
 public:
  BareMatmuls(const ModelShape& shape, int64_t rows, dnnl::memory::data_type type)
      : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_), layers_(shape.layers) {
    const int64_t q = shape.heads * shape.head_dim, kv = shape.kv_heads * shape.head_dim;
    add(layer_, rows, shape.hidden, q + 2 * kv, type);
    add(layer_, rows, q, shape.hidden, type);
    add(layer_, rows, shape.hidden, 2 * shape.mlp, type);
    add(layer_, rows, shape.mlp, shape.hidden, type);
    add(head_, 1, shape.hidden, shape.vocab, type);
  }
  void run() {
    for (int64_t i = 0; i < layers_; ++i) run(layer_);
    run(head_);
    stream_.wait();
  }

 private:
  struct Product {
    dnnl::matmul primitive;
    dnnl::memory x, w, y;
  };
  void add(std::vector<Product>& list, int64_t M, int64_t K, int64_t N, dnnl::memory::data_type type) {
    using Tag = dnnl::memory::format_tag;
    const dnnl::memory::desc x({M, K}, type, Tag::ab), w({K, N}, type, Tag::any), y({M, N}, type, Tag::ab);
    const dnnl::matmul::primitive_desc desc(dnnl::matmul::desc(x, w, y), engine_);
    Product product{dnnl::matmul(desc), dnnl::memory(x, engine_), dnnl::memory(desc.weights_desc(), engine_),
                    dnnl::memory(y, engine_)};
    for (dnnl::memory* memory : {&product.x, &product.w}) fill_with_noise(*memory, type);
    std::memset(product.y.get_data_handle(), 0, product.y.get_desc().get_size());
    list.push_back(std::move(product));
  }
  // Values like a model's: zeros would be multiplied at a higher clock.
  static void fill_with_noise(dnnl::memory& memory, dnnl::memory::data_type type) {
    const auto n = static_cast<int64_t>(memory.get_desc().get_size());
    if (type == dnnl::memory::data_type::bf16)
      return fill_random(static_cast<bf16*>(memory.get_data_handle()), n / 2, 1);
    Random random(1);
    float* values = static_cast<float*>(memory.get_data_handle());
    for (int64_t i = 0; i < n / 4; ++i) values[i] = 0.03f * random.normal();
  }
  void run(std::vector<Product>& list) {
    for (Product& p : list)
      p.primitive.execute(stream_, {{DNNL_ARG_SRC, p.x}, {DNNL_ARG_WEIGHTS, p.w}, {DNNL_ARG_DST, p.y}});
  }
  dnnl::engine engine_;
  dnnl::stream stream_;
  int64_t layers_;
  std::vector<Product> layer_, head_;
};

struct Options {
  std::string dtype = "bfloat16", shape;
  int64_t prefill = 512, context = 512, streams = 1;
  int rounds = 5;
};

void bench(const ModelShape& shape, const Options& options, const MachineCeilings& machine) {
  const DecoderSpec spec = spec_of(shape);
  const DType dtype = *dtype_from_name(options.dtype);
  const int64_t longest = std::max(options.prefill, options.context), blocks = longest / 16 + 4;
  std::unique_ptr<Decoder> decoder = make_decoder(spec, dtype, longest);
  KvCache cache(Decoder::cache_config(spec, dtype, blocks, 16));
  Tensor hidden = Tensor::empty(DType::kF32, {1, spec.hidden_size}),
         logits = Tensor::empty(DType::kF32, {1, spec.vocab_size});
  const auto step = [&](const Batch& batch) {
    decoder->forward(batch, cache, hidden);
    decoder->logits(hidden, logits);
  };
  const Batch prompt = one_sequence(0, options.prefill, spec.vocab_size, blocks);
  const Batch token = one_sequence(options.context, options.context + 1, spec.vocab_size, blocks);
  BareMatmuls bare(shape, options.prefill,
                   dtype == DType::kBf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32);
  step(one_sequence(0, options.context, spec.vocab_size, blocks)), step(prompt), step(token), bare.run();
  std::vector<double> prefill, decode, matmuls;
  for (int round = 0; round < options.rounds; ++round) {
    prefill.push_back(seconds_of([&] { step(prompt); }));
    matmuls.push_back(seconds_of([&] { bare.run(); }));
    for (int i = 0; i < 4; ++i) decode.push_back(seconds_of([&] { step(token); }));
  }
  int64_t layer_weights = 0;
  for (const TensorNeed& need : needed_tensors(spec))
    if (need.name.starts_with("layers.")) layer_weights += Shape(need.shape).numel();
  const double flops = 2.0 * static_cast<double>(layer_weights * options.prefill + spec.vocab_size * spec.hidden_size);
  const double bytes =
      static_cast<double>(decoder->weight_bytes() + cache.bytes_per_block(cache.config()) * (options.context / 16));
  const double peak =
      dtype == DType::kBf16 && machine.bf16_tile_flops > 0 ? machine.bf16_tile_flops : machine.f32_flops;
  fmt::print("{} {}\n", shape.name, options.dtype);
  fmt::print(
      "  prefill {} tokens   {:8.1f} ms  {:8.1f} tokens/s  {:5.1f} % of the matrix peak  {:.2f} x bare oneDNN matmuls "
      "({:.1f} ms)\n",
      options.prefill, 1e3 * median(prefill), options.prefill / median(prefill), 100 * flops / median(prefill) / peak,
      median(prefill) / median(matmuls), 1e3 * median(matmuls));
  fmt::print("  decode at {}        {:8.1f} ms  {:8.1f} tokens/s  {:5.1f} % of the read bandwidth ({} per step)\n",
             options.context, 1e3 * median(decode), 1 / median(decode),
             100 * bytes / median(decode) / machine.read_bytes_per_s, format_bytes(static_cast<int64_t>(bytes)));
  fmt::print("  weights {}, workspace {}\n", format_bytes(decoder->weight_bytes()),
             format_bytes(decoder->workspace_bytes()));
}

int run(int argc, char** argv) {
  CLI::App app("Prefill and decode speed of whole decoders with random weights");
  Options options;
  app.add_option("--shape", options.shape, "llama-3.2-1b or qwen2.5-0.5b; both if not given");
  app.add_option("--dtype", options.dtype)->check(CLI::IsMember({"float32", "bfloat16", "float16"}));
  app.add_option("--prefill", options.prefill, "tokens of the prompt");
  app.add_option("--context", options.context, "tokens before the decoded one");
  app.add_option("--rounds", options.rounds);
  CLI11_PARSE(app, argc, argv);
  const MachineCeilings machine = measure_machine();
  fmt::print("{}, {} threads, isa {}\n", machine_info().model_name, compute_threads(), isa_name(best_isa()));
  fmt::print("ceilings: read {:.1f} GB/s, f32 {:.0f} GFLOP/s, AMX bf16 {:.2f} TFLOP/s\n",
             machine.read_bytes_per_s / 1e9, machine.f32_flops / 1e9, machine.bf16_tile_flops / 1e12);
  for (const ModelShape& shape : kShapes)
    if (options.shape.empty() || options.shape == shape.name) bench(shape, options, machine);
  return 0;
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) { return millrace::run(argc, argv); }
