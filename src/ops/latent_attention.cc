#include "ops/latent_attention.h"

#include <algorithm>
#include <cstring>

#include "kernels/cast_rows.h"
#include "kernels/gemm.h"
#include "kernels/parallel.h"

namespace millrace {
namespace {

constexpr int64_t kQueryBytes = 32 << 20;      // of absorbed queries at a time
constexpr int64_t kExpandedBytes = 128 << 20;  // of expanded keys and values at a time, at most
constexpr int64_t kExpandedChunk = 128;        // positions whose keys and values are computed at a time

int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// Rows [begin, begin + n) of a matrix, in a matrix of their own.
Tensor rows_of(const Tensor& matrix, int64_t begin, int64_t n) { return matrix.rows(begin, begin + n); }

// Columns [begin, begin + n) of rows [T, width].
Tensor columns(const Tensor& rows, int64_t begin, int64_t n) {
  auto* data = static_cast<std::byte*>(const_cast<void*>(rows.raw())) + begin * dtype_bytes(rows.dtype());
  return Tensor(data, rows.dtype(), {rows.size(0), n}, {rows.stride(0), 1}, nullptr);
}

// Rows of float32 to rows of another type.
void cast(const Tensor& from, Tensor& to) {
  cast_rows({.from = from.data<float>(),
             .to = to.raw(),
             .slots = nullptr,
             .n = from.size(0),
             .width = from.size(1),
             .from_stride = from.stride(0),
             .to_stride = to.stride(0),
             .to_dtype = to.dtype()});
}

// What expanded keys and values are kept in.
DType expanded_dtype(DType cache) { return cache == DType::kBf16 ? DType::kBf16 : DType::kF32; }

}  // namespace

LatentAttention::LatentAttention(const Tensor& kv_b, const Params& params, DType compute) : params_(params) {
  const int64_t rows = params.nope_dim + params.value_dim;
  MR_CHECK(kv_b.rank() == 2 && kv_b.size(0) == params.heads * rows && kv_b.size(1) == params.latent_dim,
           "kv_b {} for {} heads of {} + {} and latents of {}", kv_b.shape().to_string(), params.heads, params.nope_dim,
           params.value_dim, params.latent_dim);
  for (int64_t h = 0; h < params.heads; ++h) {
    const Tensor key = rows_of(kv_b, h * rows, params.nope_dim);
    const Tensor value = rows_of(kv_b, h * rows + params.nope_dim, params.value_dim);
    const Tensor turned = key.transposed(0, 1).to_contiguous();
    absorb_.push_back(Linear::pack({&turned, 1}, {}, compute));
    values_.push_back(Linear::pack({&value, 1}, {}, compute));
  }
  if (params.form != Params::Form::kAbsorbed)
    for (int64_t h = 0; h < params.heads; h += kExpandedHeads) {
      const Tensor heads = rows_of(kv_b, h * rows, std::min(kExpandedHeads, params.heads - h) * rows);
      expand_.push_back(Linear::pack({&heads, 1}, {}, compute));
    }
  calls_.reserve(params.heads);
  rooms_.reserve(compute_threads());
}

int64_t LatentAttention::weight_bytes() const {
  int64_t bytes = 0;
  for (const auto* linears : {&absorb_, &values_, &expand_})
    for (const Linear& linear : *linears) bytes += linear.weight_bytes();
  return bytes;
}

struct LatentAttention::Call {
  const Tensor& q;
  const KvCache& cache;
  int64_t layer;
  const AttentionStep& step;
  Tensor& out;
  Workspace& workspace;

  int64_t sequences() const { return static_cast<int64_t>(step.context_len.size()); }
  int64_t new_tokens(int64_t s) const { return step.query_start[s + 1] - step.query_start[s]; }
  const KvCache::Config& config() const { return cache.config(); }
};

void LatentAttention::forward(const Tensor& q, const KvCache& cache, int64_t layer, const AttentionStep& step,
                              Tensor& out, Workspace& workspace) {
  const Params& p = params_;
  MR_CHECK(q.rank() == 3 && q.size(1) == p.heads && q.size(2) == p.query_dim() && q.dtype() == DType::kF32 &&
               q.stride(2) == 1 && (p.heads == 1 || q.stride(1) == p.query_dim()) && out.rank() == 2 &&
               out.size(0) == q.size(0) && out.size(1) == p.heads * p.value_dim &&
               (out.dtype() == DType::kF32 || out.dtype() == DType::kBf16),
           "q {}, out {} for {} heads of {} and {}", q.shape().to_string(), out.shape().to_string(), p.heads,
           p.query_dim(), p.value_dim);
  MR_CHECK(cache.config().latent_dim == p.latent_dim && cache.config().head_dim == p.latent_dim + p.rope_dim,
           "a cache of {} + {}, latents of {} + {}", cache.config().latent_dim,
           cache.config().head_dim - cache.config().latent_dim, p.latent_dim, p.rope_dim);
  const Call call{q, cache, layer, step, out, workspace};
  for (int64_t s = 0, end; s < call.sequences(); s = end) {
    end = s + 1;
    if (expands(call, s)) {
      run_expanded(call, s);
      continue;
    }
    if (goes_by_head(call, s)) {
      run_by_head(call, s);
      continue;
    }
    while (end < call.sequences() && !expands(call, end) && !goes_by_head(call, end)) ++end;
    const int64_t last = step.query_start[end], most = absorbed_tokens(last);
    for (int64_t t = step.query_start[s]; t < last; t += most) run_absorbed(call, t, std::min(t + most, last), s);
  }
}

// By multiply-adds of one head. Those of the short expanded rows take about twice as long, next to their softmax.
bool LatentAttention::expands(const Call& call, int64_t s) const {
  const Params& p = params_;
  if (p.form == Params::Form::kAbsorbed) return false;
  const int64_t context = call.step.context_len[s], fresh = call.new_tokens(s);
  if (fresh == 0 || context > expanded_context(call.config())) return false;
  if (p.form == Params::Form::kExpanded) return true;
  constexpr double kShortRows = 2;
  const double pairs = static_cast<double>(fresh) * (static_cast<double>(context) - 0.5 * static_cast<double>(fresh));
  const auto per_row = static_cast<double>(p.latent_dim * (p.nope_dim + p.value_dim));
  const double absorbed = pairs * static_cast<double>(2 * p.latent_dim + p.rope_dim) + fresh * per_row;
  const double expanded = kShortRows * pairs * static_cast<double>(p.query_dim() + p.value_dim) + context * per_row;
  return expanded < absorbed;
}

// ---- absorbed ----

int64_t LatentAttention::absorbed_tokens(int64_t max_tokens) const {
  const int64_t per_token = params_.heads * (params_.latent_dim + params_.rope_dim) * 4;
  return std::clamp<int64_t>(kQueryBytes / per_token, 1, std::max<int64_t>(max_tokens, 1));
}

int64_t LatentAttention::absorbed_bytes(int64_t max_tokens) const {
  const Params& p = params_;
  const int64_t n = absorbed_tokens(max_tokens);
  return Workspace::tensor_bytes(DType::kF32, {n, p.heads * (p.latent_dim + p.rope_dim)}) +
         Workspace::tensor_bytes(values_[0].input_dtype(), {n, p.heads * p.latent_dim}) +
         Workspace::tensor_bytes(DType::kF32, {n, p.heads * p.value_dim}) +
         std::max({grouped_scratch_bytes(absorb_[0], p.heads, n * p.heads),
                   grouped_scratch_bytes(values_[0], p.heads, n * p.heads),
                   Workspace::tensor_bytes(DType::kU8,
                                           {mla_attention_scratch_bytes(p.latent_dim + p.rope_dim, p.latent_dim)})});
}

// Tokens [first_token, end_token), the first of them of `sequence` or a later one.
void LatentAttention::run_absorbed(const Call& call, int64_t first_token, int64_t end_token, int64_t sequence) {
  const Params& p = params_;
  const Workspace::Scope scope(call.workspace);
  const int64_t n = end_token - first_token, width = p.latent_dim + p.rope_dim;
  Tensor queries = call.workspace.tensor(DType::kF32, {n, p.heads * width});
  const auto q_of = [&](int64_t h, int64_t from, int64_t count) {
    auto* data = const_cast<float*>(call.q.data<float>()) + first_token * call.q.stride(0) + h * p.query_dim() + from;
    return Tensor(data, DType::kF32, {n, count}, {call.q.stride(0), 1}, nullptr);
  };
  calls_.clear();
  for (int64_t h = 0; h < p.heads; ++h)
    calls_.push_back({&absorb_[h], q_of(h, 0, p.nope_dim), columns(queries, h * width, p.latent_dim)});
  forward_grouped(calls_, call.workspace);
  parallel_ranges(n * p.heads, 256, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(queries.data<float>() + i * width + p.latent_dim,
                  call.q.data<float>() + (first_token + i / p.heads) * call.q.stride(0) + i % p.heads * p.query_dim() +
                      p.nope_dim,
                  static_cast<size_t>(p.rope_dim) * sizeof(float));
  });
  Tensor mixed = call.workspace.tensor(values_[0].input_dtype(), {n, p.heads * p.latent_dim});
  attend_latents(call, queries, first_token, sequence, mixed);
  const bool rounds = call.out.dtype() == DType::kBf16;
  Tensor out = call.out.rows(first_token, end_token);
  Tensor values = rounds ? call.workspace.tensor(DType::kF32, {n, p.heads * p.value_dim}) : out;
  calls_.clear();
  for (int64_t h = 0; h < p.heads; ++h)
    calls_.push_back(
        {&values_[h], columns(mixed, h * p.latent_dim, p.latent_dim), columns(values, h * p.value_dim, p.value_dim)});
  forward_grouped(calls_, call.workspace);
  if (rounds) cast(values, out);
}

// Queries on the cached latents of `sequence` and those after it. The caller adds the tokens, S, H and the scratch.
MlaAttentionArgs LatentAttention::on_latents(const Call& call, int64_t sequence, const Tensor& queries,
                                             Tensor& mixed) const {
  const KvCache::Config& config = call.config();
  const int64_t row = mla_padded(config.head_dim);
  const MlaRows rows{call.cache.keys_[call.layer].raw(), config.block_tokens * row, row, 0};
  return {.q = queries.data<float>(),
          .keys = rows,
          .values = rows,
          .dtype = config.dtype,
          .block_table = call.step.block_table.data() + sequence * call.step.max_blocks,
          .out = mixed.raw(),
          .G = 1,
          .key_dim = config.head_dim,
          .value_dim = params_.latent_dim,
          .block_tokens = config.block_tokens,
          .max_blocks = call.step.max_blocks,
          .q_stride = queries.stride(0),
          .out_stride = mixed.stride(0),
          .scale = params_.scale,
          .out_dtype = mixed.dtype()};
}

// Where many tokens of a sequence are new, a thread takes some tokens of one head from their queries to their outputs,
// so that what is absorbed and mixed stays in its caches.
constexpr int64_t kHeadTokens = 128;      // at a time
constexpr int64_t kLeastHeadTokens = 32;  // fewer share the latents between heads instead

bool LatentAttention::goes_by_head(const Call& call, int64_t s) const {
  return call.new_tokens(s) >= kLeastHeadTokens && call.config().latent_dim == params_.latent_dim;
}

static int64_t product_bytes(const Linear& absorb, const Linear& value, int64_t rows) {
  const auto bytes = [&](const Linear& l) {
    return gemm_scratch_bytes(rows, l.out_features(), l.in_features(), l.weight_dtype());
  };
  return std::max(bytes(absorb), bytes(value));
}

// [kHeadTokens, latent_dim + rope_dim], [kHeadTokens, latent_dim], [kHeadTokens, value_dim] and scratch.
LatentAttention::HeadRoom LatentAttention::head_room(const Call& call) const {
  const Params& p = params_;
  Workspace& workspace = call.workspace;
  return {workspace.tensor(DType::kF32, {kHeadTokens, p.latent_dim + p.rope_dim}),
          workspace.tensor(values_[0].input_dtype(), {kHeadTokens, p.latent_dim}),
          workspace.tensor(DType::kF32, {kHeadTokens, p.value_dim}),
          workspace.bytes(product_bytes(absorb_[0], values_[0], kHeadTokens)),
          workspace.bytes(mla_attention_scratch_bytes(p.latent_dim + p.rope_dim, p.latent_dim, 1)),
          {}};
}
int64_t LatentAttention::head_bytes() const {
  const Params& p = params_;
  const int64_t attention = mla_attention_scratch_bytes(p.latent_dim + p.rope_dim, p.latent_dim, 1);
  return compute_threads() *
         (Workspace::tensor_bytes(DType::kF32, {kHeadTokens, p.latent_dim + p.rope_dim}) +
          Workspace::tensor_bytes(values_[0].input_dtype(), {kHeadTokens, p.latent_dim}) +
          Workspace::tensor_bytes(DType::kF32, {kHeadTokens, p.value_dim}) +
          Workspace::tensor_bytes(DType::kU8, {product_bytes(absorb_[0], values_[0], kHeadTokens)}) +
          Workspace::tensor_bytes(DType::kU8, {attention}));
}

void LatentAttention::run_by_head(const Call& call, int64_t sequence) {
  const Workspace::Scope scope(call.workspace);
  const int64_t tokens = call.new_tokens(sequence), chunks = (tokens + kHeadTokens - 1) / kHeadTokens;
  rooms_.clear();
  for (int i = 0; i < compute_threads(); ++i) rooms_.push_back(head_room(call));
  WorkQueue queue(params_.heads * chunks);
  parallel_team([&](const TeamMember& me) {
    for (int64_t i = queue.next(); i >= 0; i = queue.next()) {
      const int64_t first = i % chunks * kHeadTokens;
      run_head(call, sequence, i / chunks, first, std::min(kHeadTokens, tokens - first), rooms_[me.index]);
    }
  });
}

// y = linear(x) in memory of the calling thread's own. Requires: a dense linear without bias.
static void multiply(const Linear& linear, const Tensor& x, Tensor& y, std::byte* scratch) {
  const Linear::Packed packed = linear.packed();
  gemm({.x = x.raw(),
        .w = packed.weights.raw(),
        .bias = nullptr,
        .y = y.data<float>(),
        .scratch = scratch,
        .M = x.size(0),
        .N = packed.rows,
        .K = packed.columns,
        .x_stride = x.stride(0),
        .y_stride = y.stride(0),
        .x_dtype = x.dtype(),
        .w_dtype = packed.dtype});
}

// New tokens [first, first + n) of the sequence.
void LatentAttention::run_head(const Call& call, int64_t sequence, int64_t head, int64_t first, int64_t n,
                               HeadRoom& room) const {
  const Params& p = params_;
  const int64_t token = call.step.query_start[sequence] + first, width = p.latent_dim + p.rope_dim;
  auto* const q = const_cast<float*>(call.q.data<float>()) + token * call.q.stride(0) + head * p.query_dim();
  Tensor queries = room.queries.rows(0, n), mixed = room.mixed.rows(0, n), values = room.values.rows(0, n);
  Tensor absorbed = columns(queries, 0, p.latent_dim);
  multiply(absorb_[head], Tensor(q, DType::kF32, {n, p.nope_dim}, {call.q.stride(0), 1}, nullptr), absorbed,
           room.products);
  for (int64_t i = 0; i < n; ++i)
    std::memcpy(queries.data<float>() + i * width + p.latent_dim, q + i * call.q.stride(0) + p.nope_dim,
                static_cast<size_t>(p.rope_dim) * sizeof(float));
  const int32_t query_start[] = {0, static_cast<int32_t>(n)};
  const auto context_len =
      static_cast<int32_t>(call.step.context_len[sequence] - (call.new_tokens(sequence) - first - n));
  MlaAttentionArgs args = on_latents(call, sequence, queries, mixed);
  args.query_start = query_start, args.context_len = &context_len;
  args.S = args.H = 1;
  args.scratch = room.attention;
  args.threads = 1, args.held = &room.held;
  mla_attention(args);
  multiply(values_[head], mixed, values, room.products);
  Tensor out = columns(call.out.rows(token, token + n), head * p.value_dim, p.value_dim);
  cast(values, out);
}

// mixed [n, H * latent_dim] from queries [n, H * (latent_dim + rope_dim)], whose first row is token first_token's.
void LatentAttention::attend_latents(const Call& call, const Tensor& queries, int64_t first_token, int64_t sequence,
                                     Tensor& mixed) {
  const Workspace::Scope scope(call.workspace);
  const int64_t end_token = first_token + queries.size(0);
  while (call.step.query_start[sequence + 1] <= first_token) ++sequence;
  query_start_.assign(1, 0);
  context_len_.clear();
  for (int64_t s = sequence; s < call.sequences() && call.step.query_start[s] < end_token; ++s) {
    const int64_t whole_end = call.step.query_start[s + 1], end = std::min(whole_end, end_token);
    query_start_.push_back(static_cast<int32_t>(end - first_token));
    context_len_.push_back(static_cast<int32_t>(call.step.context_len[s] - (whole_end - end)));
  }
  MlaAttentionArgs args = on_latents(call, sequence, queries, mixed);
  args.query_start = query_start_.data(), args.context_len = context_len_.data();
  args.S = static_cast<int64_t>(context_len_.size()), args.H = params_.heads;
  args.scratch = call.workspace.bytes(mla_attention_scratch_bytes(args.key_dim, args.value_dim));
  mla_attention(args);
}

// ---- expanded ----

// Keys [heads][capacity][Kp] and values [heads][capacity][Vp] of heads [head, head + heads) of one sequence.
struct LatentAttention::Expanded {
  int64_t sequence, context, capacity, head, heads;
  DType dtype;
  Tensor latents;  // [context, row of the cache] in `dtype`
  Tensor keys, values;
};

// Bytes of one position's keys and values of one head.
int64_t LatentAttention::expanded_row_bytes(DType cache) const {
  return (mla_padded(params_.query_dim()) + mla_padded(params_.value_dim)) * dtype_bytes(expanded_dtype(cache));
}

int64_t LatentAttention::expanded_context(const KvCache::Config& cache) const {
  return kExpandedBytes / (expanded_row_bytes(cache.dtype) * std::min(kExpandedHeads, params_.heads)) / 16 * 16;
}

// How many heads of a sequence are expanded together: few, so that they stay in cache, but enough for all threads.
int64_t LatentAttention::expanded_heads(const KvCache::Config& cache, int64_t context) const {
  const int64_t fit = kExpandedBytes / (expanded_row_bytes(cache.dtype) * round_up(context, 16));
  const int64_t heads = std::min<int64_t>(fit, round_up(4 * compute_threads(), kExpandedHeads));
  return std::min(std::max<int64_t>(heads / kExpandedHeads, 1) * kExpandedHeads, params_.heads);
}

int64_t LatentAttention::expanded_bytes(const KvCache::Config& cache, int64_t max_context) const {
  if (params_.form == Params::Form::kAbsorbed) return 0;
  const Params& p = params_;
  const DType dtype = expanded_dtype(cache.dtype);
  const auto expanders = static_cast<int64_t>(expand_.size());
  const int64_t context = round_up(std::min(max_context, expanded_context(cache)), 16);
  const int64_t products = Workspace::tensor_bytes(DType::kF32, {kExpandedChunk, p.nope_dim + p.value_dim});
  return Workspace::tensor_bytes(dtype, {context, mla_padded(cache.head_dim)}) +
         std::min(kExpandedBytes, p.heads * context * expanded_row_bytes(cache.dtype)) + 128 +
         std::max(p.heads * products + grouped_scratch_bytes(expand_[0], expanders, expanders * kExpandedChunk),
                  Workspace::tensor_bytes(DType::kU8, {mla_attention_scratch_bytes(p.query_dim(), p.value_dim)}));
}

// The cached rows of a sequence's context, one after another.
static void gather_latents(const KvCache::Config& config, const void* cache, const int32_t* blocks, Tensor& to) {
  const int64_t width = mla_padded(config.head_dim), bytes = dtype_bytes(config.dtype);
  parallel_ranges(to.size(0), 64, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      const int64_t row = blocks[j / config.block_tokens] * config.block_tokens + j % config.block_tokens;
      const std::byte* from = static_cast<const std::byte*>(cache) + row * width * bytes;
      std::byte* out = static_cast<std::byte*>(to.raw()) + j * width * dtype_bytes(to.dtype());
      if (to.dtype() == config.dtype)
        std::memcpy(out, from, static_cast<size_t>(width * bytes));
      else
        for (int64_t i = 0; i < width; ++i)
          reinterpret_cast<float*>(out)[i] = to_float(reinterpret_cast<const f16*>(from)[i]);
    }
  });
}

void LatentAttention::run_expanded(const Call& call, int64_t sequence) {
  const Params& p = params_;
  const Workspace::Scope scope(call.workspace);
  Expanded e{.sequence = sequence, .context = call.step.context_len[sequence], .capacity = 0, .head = 0, .heads = 0};
  e.dtype = expanded_dtype(call.config().dtype);
  e.capacity = round_up(e.context, 16);
  e.latents = call.workspace.tensor(e.dtype, {e.context, mla_padded(call.config().head_dim)});
  gather_latents(call.config(), call.cache.keys_[call.layer].raw(),
                 call.step.block_table.data() + sequence * call.step.max_blocks, e.latents);
  const int64_t most = expanded_heads(call.config(), e.context);
  e.keys = call.workspace.tensor(e.dtype, {most, e.capacity, mla_padded(p.query_dim())});
  e.values = call.workspace.tensor(e.dtype, {most, e.capacity, mla_padded(p.value_dim)});
  for (; e.head < p.heads; e.head += e.heads) {
    e.heads = std::min(most, p.heads - e.head);
    for (int64_t j = 0; j < e.context; j += kExpandedChunk)
      expand(e, j, std::min(kExpandedChunk, e.context - j), call.workspace);
    attend_expanded(call, e);
  }
}

// Keys and values of positions [position, position + count).
void LatentAttention::expand(const Expanded& e, int64_t position, int64_t count, Workspace& workspace) {
  const Params& p = params_;
  const Workspace::Scope scope(workspace);
  const Tensor latents = columns(e.latents.rows(position, position + count), 0, p.latent_dim);
  const int64_t columns_of_head = p.nope_dim + p.value_dim;
  calls_.clear();
  for (int64_t h = e.head; h < e.head + e.heads; h += kExpandedHeads) {
    const Linear& linear = expand_[h / kExpandedHeads];
    calls_.push_back({&linear, latents, workspace.tensor(DType::kF32, {count, linear.out_features()})});
  }
  forward_grouped(calls_, workspace);
  const int64_t item = dtype_bytes(e.dtype), latent_row = e.latents.size(1), rope_padded = mla_padded(p.query_dim());
  const auto place = [&](const Tensor& rows, int64_t head) {
    auto* base = static_cast<std::byte*>(const_cast<void*>(rows.raw()));
    return base + (head * e.capacity + position) * rows.size(2) * item;
  };
  const auto keep = [&](int64_t h, int64_t from, int64_t width, std::byte* to, int64_t stride) {
    const Tensor& products = calls_[h / kExpandedHeads].y;
    cast_rows({.from = products.data<float>() + h % kExpandedHeads * columns_of_head + from,
               .to = to,
               .slots = nullptr,
               .n = count,
               .width = width,
               .from_stride = products.size(1),
               .to_stride = stride,
               .padded = stride,
               .to_dtype = e.dtype});
  };
  parallel_items(e.heads, [&](int64_t h) {
    std::byte* const keys = place(e.keys, h);
    keep(h, 0, p.nope_dim, keys, rope_padded);
    const std::byte* rope =
        static_cast<const std::byte*>(e.latents.raw()) + (position * latent_row + p.latent_dim) * item;
    for (int64_t j = 0; j < count; ++j)
      std::memcpy(keys + (j * rope_padded + p.nope_dim) * item, rope + j * latent_row * item,
                  static_cast<size_t>(p.rope_dim * item));
    keep(h, p.nope_dim, p.value_dim, place(e.values, h), e.values.size(2));
  });
}

void LatentAttention::attend_expanded(const Call& call, const Expanded& e) {
  const Params& p = params_;
  const Workspace::Scope scope(call.workspace);
  const int64_t token = call.step.query_start[e.sequence];
  const int32_t query_start[] = {0, static_cast<int32_t>(call.new_tokens(e.sequence))};
  const auto context_len = static_cast<int32_t>(e.context);
  const int32_t block = 0;
  const auto rows = [&](const Tensor& t) { return MlaRows{t.raw(), 0, t.size(2), e.capacity * t.size(2)}; };
  mla_attention({.q = call.q.data<float>() + token * call.q.stride(0) + e.head * p.query_dim(),
                 .keys = rows(e.keys),
                 .values = rows(e.values),
                 .dtype = e.dtype,
                 .query_start = query_start,
                 .context_len = &context_len,
                 .block_table = &block,
                 .out = static_cast<std::byte*>(call.out.raw()) +
                        (token * call.out.stride(0) + e.head * p.value_dim) * dtype_bytes(call.out.dtype()),
                 .scratch = call.workspace.bytes(mla_attention_scratch_bytes(p.query_dim(), p.value_dim)),
                 .S = 1,
                 .H = e.heads,
                 .G = e.heads,
                 .key_dim = p.query_dim(),
                 .value_dim = p.value_dim,
                 .block_tokens = e.capacity,
                 .max_blocks = 1,
                 .q_stride = call.q.stride(0),
                 .out_stride = call.out.stride(0),
                 .scale = p.scale,
                 .out_dtype = call.out.dtype()});
}

int64_t LatentAttention::scratch_bytes(const KvCache::Config& cache, int64_t max_tokens, int64_t max_context) const {
  return std::max({absorbed_bytes(max_tokens), head_bytes(), expanded_bytes(cache, max_context)});
}

}  // namespace millrace
