// Prefill and decode of a whole decoder with random weights, in one run beside what bounds them: the machine's matrix
// peak and memory bandwidth, and bare oneDNN matmuls of the same shapes. Prints medians.
//   bench_decoder [--shape llama-3.2-1b] [--dtype bfloat16] [--quantization none w8a8 w8a16 w4a16] [--prefill 512 2048]
//                 [--kv-cache-dtype auto int8 int8-dynamic] [--context 512] [--streams 1 16] [--rounds 5] [--json]
//                 [--turns]
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>
#include <oneapi/dnnl/dnnl.hpp>
#include <optional>

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

// What the matrices inside layers are kept in: the decoder's dtype, or integers as loaders make them.
struct Format {
  const char* name;
  LinearFormat format;
};
constexpr Format kFormats[] = {{"none", LinearFormat::kDense},
                               {"w8a8", LinearFormat::kW8A8},
                               {"w8a16", LinearFormat::kW8A16},
                               {"w4a16", LinearFormat::kW4A16}};

// As a checkpoint of AutoAWQ has it: groups of 128, each with a scale and a zero point.
QuantizedMatrix random_int4(const Sizes& sizes, uint64_t seed) {
  constexpr int64_t kGroup = 128;
  QuantizedMatrix matrix{
      .scheme = QuantizedMatrix::Scheme::kInt4, .rows = sizes[0], .columns = sizes[1], .group = kGroup};
  const int64_t groups = matrix.groups(), K = matrix.columns;
  matrix.scales = Tensor::empty(DType::kF32, {sizes[0], groups});
  matrix.zeros = Tensor::empty(DType::kU8, {sizes[0], groups});
  Random random(seed);
  for (int64_t i = 0; i < sizes[0] * groups; ++i) {
    matrix.scales.data<float>()[i] = 0.003f + 0.001f * static_cast<float>(random.below(4));
    matrix.zeros.data<uint8_t>()[i] = static_cast<uint8_t>(6 + random.below(5));
  }
  matrix.unpack = [seed, K](int64_t begin, int64_t end, uint8_t* values) {
    uint64_t state = seed * 0x9E3779B97F4A7C15u + static_cast<uint64_t>(begin);
    for (int64_t i = 0; i < (end - begin) * K; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      values[i] = static_cast<uint8_t>(state >> 60);
    }
  };
  return matrix;
}

DecoderTensors random_tensors(const DecoderSpec& spec, LinearFormat format) {
  DecoderTensors tensors({});
  uint64_t seed = 0;
  for (const TensorNeed& need : needed_tensors(spec)) {
    const bool matrix = need.name.starts_with("layers.") && need.shape.size() == 2;
    if (matrix && format == LinearFormat::kW4A16)
      tensors.quantized[need.name] = random_int4(need.shape, ++seed);
    else
      tensors.dense[need.name] = random_weight(need.shape, ++seed);
  }
  return tensors;
}

std::unique_ptr<Decoder> make_decoder(const DecoderSpec& spec, DType dtype, LinearFormat format, int64_t context) {
  DecoderOptions options{.dtype = dtype, .max_context = context + 64};
  if (format != LinearFormat::kW4A16) options.quantization = format;
  Result<std::unique_ptr<Decoder>> decoder = Decoder::create(spec, random_tensors(spec, format), options);
  MR_CHECK(decoder.ok(), "{}", decoder.status().message());
  return std::move(*decoder);
}

// `sequences` sequences' tokens [begin, end), the last row of each wanted; each has `blocks` blocks of its own.
Batch batch_of(int64_t sequences, int64_t begin, int64_t end, int64_t vocab, int64_t blocks) {
  Batch batch;
  batch.clear();
  batch.max_blocks = static_cast<int32_t>(blocks);
  Random random(static_cast<uint64_t>(begin) + 5);
  for (int64_t s = 0; s < sequences; ++s) {
    for (int64_t i = begin; i < end; ++i) {
      batch.tokens.push_back(static_cast<int32_t>(random.below(static_cast<uint32_t>(vocab))));
      batch.positions.push_back(static_cast<int32_t>(i));
    }
    for (int64_t b = 0; b < blocks; ++b) batch.block_table.push_back(static_cast<int32_t>(s * blocks + b));
    batch.query_start.push_back(static_cast<int32_t>(batch.num_tokens()));
    batch.context_len.push_back(static_cast<int32_t>(end));
    batch.rope_len.push_back(static_cast<int32_t>(end));
    batch.logit_rows.push_back(static_cast<int32_t>(batch.num_tokens() - 1));
  }
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
  std::string dtype = "bfloat16";
  std::vector<std::string> shapes, formats, caches = {"auto"};
  std::vector<int64_t> prefill = {512}, streams = {1};
  int64_t context = 512;
  int rounds = 5;
  bool json = false, turns = false;
};

// Operations of multiplying `rows` rows by all matrices of the layers, and one by the head.
double operations(const DecoderSpec& spec, int64_t rows) {
  int64_t layer_weights = 0;
  for (const TensorNeed& need : needed_tensors(spec))
    if (need.name.starts_with("layers.")) layer_weights += Shape(need.shape).numel();
  return 2.0 * static_cast<double>(layer_weights * rows + spec.vocab_size * spec.hidden_size);
}

double matrix_peak(const MachineCeilings& machine, DType dtype, LinearFormat format) {
  const bool integers = format == LinearFormat::kW8A8 && dtype == DType::kBf16;
  return integers ? machine.int8_ops() : machine.product_flops(dtype);
}

KvType kv_type(const std::string& name, DType dtype) {
  return name == "auto" ? KvType(dtype) : KvType(DType::kI8, name == "int8-dynamic");
}

KvCache make_cache(const DecoderSpec& spec, KvType type, int64_t blocks) {
  const KvCache::Config config = Decoder::cache_config(spec, type, blocks, 16);
  const std::vector<float> scales(config.has_head_scales() ? config.layers * config.kv_heads : 0, 0.02f);
  return KvCache(config, {scales, scales});
}

// A decoder, its caches, and what its steps write.
class Bench {
 public:
  Bench(const ModelShape& shape, const Format& format, const Options& options)
      : shape_(shape),
        format_name_(format.name),
        format_(format.format),
        options_(options),
        dtype_(*dtype_from_name(options.dtype)),
        spec_(spec_of(shape)),
        longest_(std::max(options.context, *std::ranges::max_element(options.prefill))),
        blocks_(longest_ / 16 + 4),
        most_streams_(*std::ranges::max_element(options.streams)),
        decoder_(make_decoder(spec_, dtype_, format_, longest_)),
        hidden_(Tensor::empty(DType::kF32, {most_streams_, spec_.hidden_size})),
        logits_(Tensor::empty(DType::kF32, {most_streams_, spec_.vocab_size})) {
    for (const std::string& name : options.caches)
      caches_.push_back(make_cache(spec_, kv_type(name, dtype_), blocks_ * most_streams_));
    for (KvCache& cache : caches_) fill(cache);
    if (options.json) return;
    fmt::print("{} {}{}: weights {}, workspace {}\n", shape.name, options.dtype,
               format_ == LinearFormat::kDense ? "" : fmt::format(", {}", format_name_),
               format_bytes(decoder_->weight_bytes()), format_bytes(decoder_->workspace_bytes()));
  }

  void prefill(int64_t tokens, const MachineCeilings& machine) {
    const Batch prompt = batch_of(1, 0, tokens, spec_.vocab_size, blocks_);
    std::optional<BareMatmuls> bare;
    if (format_ == LinearFormat::kDense && !options_.turns)
      bare.emplace(shape_, tokens,
                   dtype_ == DType::kBf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32);
    std::vector<double> times, matmuls;
    for (int round = -1; round < options_.rounds; ++round) {  // the first one warms up
      times.push_back(turn([&] { step(prompt, caches_[0]); }));
      if (bare) matmuls.push_back(seconds_of([&] { bare->run(); }));
    }
    const double seconds = median_of_rounds(times);
    const double share = operations(spec_, tokens) / seconds / matrix_peak(machine, dtype_, format_);
    if (options_.json) return print_json("prefill", 1, tokens, times, share, options_.caches[0]);
    fmt::print("  prefill {:4} tokens  {:8.1f} ms  {:8.1f} tokens/s  {:5.1f} % of the matrix peak", tokens,
               1e3 * seconds, static_cast<double>(tokens) / seconds,
               100 * operations(spec_, tokens) / seconds / matrix_peak(machine, dtype_, format_));
    if (bare)
      fmt::print("  {:.2f} x bare oneDNN matmuls ({:.1f} ms)", seconds / median_of_rounds(matmuls),
                 1e3 * median_of_rounds(matmuls));
    fmt::print("\n");
  }

  // One token of each of `streams` sequences, each with options.context tokens before it.
  void decode(int64_t streams, const MachineCeilings& machine) {
    const Batch tokens = batch_of(streams, options_.context, options_.context + 1, spec_.vocab_size, blocks_);
    std::vector<std::vector<double>> times(caches_.size());
    for (int i = -1; i < 4 * options_.rounds; ++i)
      for (size_t c = 0; c < caches_.size(); ++c) times[c].push_back(turn([&] { step(tokens, caches_[c]); }));
    for (size_t c = 0; c < caches_.size(); ++c) {
      const double seconds = median_of_rounds(times[c]);
      const int64_t keys = streams * KvCache::bytes_per_block(caches_[c].config()) * options_.context / 16;
      const auto bytes = static_cast<double>(decoder_->weight_bytes() + keys);
      const double share = bytes / seconds / machine.read_bytes_per_s;
      if (options_.json) {
        print_json("decode", streams, streams, times[c], share, options_.caches[c]);
        continue;
      }
      fmt::print(
          "  decode {:3} x {:5}  {:12} {:8.2f} ms  {:8.1f} tokens/s  {:5.1f} % of the read bandwidth ({} per step, {} "
          "of them keys and values)\n",
          streams, options_.context, options_.caches[c] == "auto" ? "" : options_.caches[c], 1e3 * seconds,
          static_cast<double>(streams) / seconds, 100 * share, format_bytes(static_cast<int64_t>(bytes)),
          format_bytes(keys));
    }
  }

 private:
  // Without the first, which warms up.
  static double median_of_rounds(const std::vector<double>& times) {
    return median(std::vector<double>(times.begin() + 1, times.end()));
  }
  // The first sequence's keys and values, then the same for the others.
  void fill(KvCache& cache) {
    step(batch_of(1, 0, options_.context, spec_.vocab_size, blocks_), cache);
    for (int64_t block = blocks_; block < blocks_ * most_streams_; ++block) cache.copy_block(block % blocks_, block);
  }
  // One line: `tokens` are those of a step, `share` the part of the ceiling that bounds it.
  void print_json(const char* measure, int64_t streams, int64_t tokens, const std::vector<double>& times, double share,
                  const std::string& kv_cache_dtype) const {
    const nlohmann::json line = {
        {"shape", shape_.name}, {"format", format_name_},
        {"measure", measure},   {"streams", streams},
        {"tokens", tokens},     {"seconds", std::vector<double>(times.begin() + 1, times.end())},
        {"share", share},       {"kv_cache_dtype", kv_cache_dtype}};
    fmt::print("{}\n", line.dump());
  }
  // One timed round. With --turns it waits for a line of input and prints its time, so that another program can take
  // turns with this one.
  template <class Body>
  double turn(Body&& body) const {
    std::string line;
    MR_CHECK(!options_.turns || std::getline(std::cin, line), "the input ended before the rounds did");
    const double seconds = seconds_of(body);
    if (options_.turns) fmt::print("{}\n", seconds), std::fflush(stdout);
    return seconds;
  }
  void step(const Batch& batch, KvCache& cache) {
    decoder_->forward(batch, cache, hidden_);
    Tensor rows = logits_.rows(0, batch.num_sequences());
    decoder_->logits(hidden_.rows(0, batch.num_sequences()), rows);
  }

  const ModelShape& shape_;
  const char* const format_name_;
  const LinearFormat format_;
  const Options& options_;
  const DType dtype_;
  const DecoderSpec spec_;
  const int64_t longest_, blocks_, most_streams_;
  std::unique_ptr<Decoder> decoder_;
  std::vector<KvCache> caches_;
  Tensor hidden_, logits_;
};

bool asked(const std::vector<std::string>& names, const std::string& name) {
  return std::ranges::find(names, name) != names.end();
}

void bench(const ModelShape& shape, const Format& format, const Options& options) {
  const MachineCeilings machine = measure_machine();  // just before: a shared machine's ceilings drift
  if (!options.json)
    fmt::print("reads {:.1f} GB/s, f32 {:.0f} GFLOP/s, bf16 {:.2f} TFLOP/s, int8 {:.2f} TOP/s\n",
               machine.read_bytes_per_s / 1e9, machine.f32_flops / 1e9, machine.bf16_flops() / 1e12,
               machine.int8_ops() / 1e12);
  Bench bench(shape, format, options);
  for (const int64_t tokens : options.prefill)
    if (tokens > 0) bench.prefill(tokens, machine);
  for (const int64_t streams : options.streams) bench.decode(streams, machine);
}

int run(int argc, char** argv) {
  CLI::App app("Prefill and decode speed of whole decoders with random weights");
  Options options{.shapes = {"llama-3.2-1b", "qwen2.5-0.5b"}, .formats = {"none"}};
  app.add_option("--shape", options.shapes, "both if not given")
      ->check(CLI::IsMember({"llama-3.2-1b", "qwen2.5-0.5b"}));
  app.add_option("--dtype", options.dtype)->check(CLI::IsMember({"float32", "bfloat16", "float16"}));
  app.add_option("-q,--quantization", options.formats, "of the matrices inside layers; several are run in turn")
      ->check(CLI::IsMember({"none", "w8a8", "w8a16", "w4a16"}));
  app.add_option("--kv-cache-dtype", options.caches, "several decode in turn, round by round; the first one prefills")
      ->check(CLI::IsMember({"auto", "int8", "int8-dynamic"}));
  app.add_option("--prefill", options.prefill, "tokens of the prompt, or several such; 0: none");
  app.add_option("--context", options.context, "tokens before the decoded ones")->check(CLI::PositiveNumber);
  app.add_option("--streams", options.streams, "sequences that decode together, or several such")
      ->check(CLI::PositiveNumber);
  app.add_option("--rounds", options.rounds)->check(CLI::PositiveNumber);
  app.add_flag("--json", options.json, "a line for each measure, with every round's seconds");
  app.add_flag("--turns", options.turns,
               "before every step waits for a line of input, then prints the step's seconds; without oneDNN");
  CLI11_PARSE(app, argc, argv);
  if (!options.json)
    fmt::print("{}, {} threads, isa {}\n", machine_info().model_name, compute_threads(), isa_name(best_isa()));
  for (const ModelShape& shape : kShapes)
    for (const Format& format : kFormats)
      if (asked(options.shapes, shape.name) && asked(options.formats, format.name)) bench(shape, format, options);
  return 0;
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) { return millrace::run(argc, argv); }
