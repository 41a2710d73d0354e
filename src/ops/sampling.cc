#include "ops/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/random.h"
#include "kernels/logits.h"

namespace millrace {
namespace {

constexpr float kBanned = -std::numeric_limits<float>::infinity();

int64_t size_of(std::span<const float> logits) { return static_cast<int64_t>(logits.size()); }

void check_id(int32_t id, std::span<const float> logits) {
  MR_CHECK(id >= 0 && id < size_of(logits), "token {} of {}", id, logits.size());
}

float largest(std::span<const float> logits) { return logit_kernels().largest(logits.data(), size_of(logits)); }

// Larger values first, then lower ids.
struct Better {
  std::span<const float> logits;
  bool operator()(int32_t a, int32_t b) const { return logits[a] > logits[b] || (logits[a] == logits[b] && a < b); }
};

// The k best tokens in order in scratch.indices; fewer where fewer are not banned.
void best_tokens(std::span<const float> logits, int64_t k, SampleScratch& scratch) {
  const int64_t n = size_of(logits), room = std::max<int64_t>(2 * k, 256);
  const Better better{logits};
  std::vector<int32_t>& best = scratch.indices;
  best.resize(room);
  float bound = std::numeric_limits<float>::lowest();
  int64_t count = 0;
  for (int64_t from = 0; from < n;) {
    count += logit_kernels().collect(logits.data(), n, bound, from, best.data() + count, room - count, &from);
    if (count <= k) continue;
    std::nth_element(best.begin(), best.begin() + (k - 1), best.begin() + count, better);
    count = k;
    bound = logits[best[k - 1]];
  }
  best.resize(std::min(count, k));
  std::sort(best.begin(), best.end(), better);
}

void drop_below(std::span<float> logits, float bound) {
  logit_kernels().ban_below(logits.data(), size_of(logits), bound);
}

void keep_top_k(std::span<float> logits, int64_t k, SampleScratch& scratch) {
  if (k <= 0 || k >= size_of(logits)) return;
  best_tokens(logits, k, scratch);
  if (static_cast<int64_t>(scratch.indices.size()) == k) drop_below(logits, logits[scratch.indices.back()]);
}

// Bans the last of `edge`, ordered best first: those before which masses of `enough` lie, `before` in front of all of
// them. The very best token stays.
void ban_after(std::span<float> logits, std::span<const int32_t> edge, float top, double before, double enough) {
  for (const int32_t id : edge) {
    const float logit = logits[id];
    if (before >= enough && before > 0) logits[id] = kBanned;
    before += std::exp(static_cast<double>(logit) - top);
  }
}

// Where few tokens are left: all of them in order.
void keep_top_p_of_few(std::span<float> logits, float p, std::vector<int32_t>& left) {
  std::sort(left.begin(), left.end(), Better{logits});
  const float top = logits[left[0]];
  double total = 0;
  for (const int32_t id : left) total += std::exp(static_cast<double>(logits[id]) - top);
  ban_after(logits, left, top, 0, p * total);
}

// Two logits: masses of the tokens from `low` on reach `enough`, those from `high` on do not.
struct Bracket {
  float low, high;
};
Bracket bracket_of(std::span<const float> logits, std::span<const float> masses, float top, double enough) {
  constexpr int kHalvings = 14;
  const auto reaches = [&](float bound) {
    return logit_kernels().sum_from(logits.data(), masses.data(), size_of(logits), bound) >= enough;
  };
  Bracket bracket{top, std::nextafter(top, std::numeric_limits<float>::infinity())};
  for (float distance = 0.5f; !reaches(bracket.low) && distance < 256; distance *= 2)
    bracket = {top - distance, bracket.low};
  for (int i = 0; i < kHalvings; ++i) {
    const float middle = bracket.low + (bracket.high - bracket.low) / 2;
    if (!(middle > bracket.low && middle < bracket.high)) break;
    (reaches(middle) ? bracket.low : bracket.high) = middle;
  }
  return bracket;
}

// The tokens whose logits lie in the bracket, best first.
void collect_edge(std::span<const float> logits, const Bracket& bracket, std::vector<int32_t>& edge) {
  constexpr int64_t kAtOnce = 1024;
  int32_t found[kAtOnce];
  edge.clear();
  for (int64_t from = 0; from < size_of(logits);) {
    const int64_t count =
        logit_kernels().collect(logits.data(), size_of(logits), bracket.low, from, found, kAtOnce, &from);
    for (int64_t i = 0; i < count; ++i)
      if (logits[found[i]] < bracket.high) edge.push_back(found[i]);
  }
  std::sort(edge.begin(), edge.end(), Better{logits});
}

// A token stays while the mass of all better ones is below p of the total.
void keep_top_p(std::span<float> logits, float p, SampleScratch& scratch) {
  constexpr int64_t kFew = 1024;
  constexpr float kLowest = std::numeric_limits<float>::lowest();
  if (p >= 1) return;
  const LogitKernels& kernels = logit_kernels();
  const int64_t n = size_of(logits);
  int64_t seen = 0;
  std::vector<int32_t>& ids = scratch.indices;
  ids.resize(kFew);
  ids.resize(kernels.collect(logits.data(), n, kLowest, 0, ids.data(), kFew, &seen));
  if (ids.empty()) return;
  if (seen == n) return keep_top_p_of_few(logits, p, ids);
  const float top = largest(logits);
  scratch.values.resize(logits.size());
  kernels.exps(logits.data(), n, top, scratch.values.data());
  const auto mass_from = [&](float bound) { return kernels.sum_from(logits.data(), scratch.values.data(), n, bound); };
  const double enough = static_cast<double>(p) * mass_from(kLowest);
  const Bracket bracket = bracket_of(logits, scratch.values, top, enough);
  collect_edge(logits, bracket, ids);
  ban_after(logits, ids, top, mass_from(bracket.high), enough);
  kernels.ban_below(logits.data(), n, bracket.low);
}

void keep_min_p(std::span<float> logits, float min_p) {
  if (min_p <= 0) return;
  const float top = largest(logits);
  if (top > kBanned) drop_below(logits, std::min(top, top + std::log(min_p)));
}

// Exponential noise e as -log(e): Gumbel noise. `bits` is the token's word of philox(seed, token / 4, position).
float gumbel(uint32_t bits) { return -std::log(-std::log(uniform_open(bits))); }
float gumbel(uint64_t seed, uint64_t position, int32_t token) {
  return gumbel(philox(seed, static_cast<uint64_t>(token) / 4, position)[token % 4]);
}
constexpr float kMostNoise = 17;  // -log(-log(1 - 2^-24)) is 16.64

// Least bits whose noise could reach `wanted`, a little less to be safe from rounding.
uint32_t bits_reaching(float wanted) {
  const double least = std::exp(-std::exp(-static_cast<double>(wanted))) * (1 - 1e-5) - 1e-6;
  return static_cast<uint32_t>(std::clamp(least, 0.0, 1.0) * 4294967295.0);
}

// argmax of logit + noise, the lower id on ties. Blocks of tokens that cannot win are passed over, then single tokens
// by their bits, before any logarithm is taken.
int32_t draw(std::span<const float> logits, uint64_t seed, uint64_t position) {
  constexpr int64_t kBlock = 256;
  uint32_t bits[kBlock];
  int32_t chosen = greedy_token(logits);
  if (logits[chosen] == kBanned) return chosen;
  float best = logits[chosen] + gumbel(seed, position, chosen);
  for (int64_t first = 0; first < size_of(logits); first += kBlock) {
    const auto block = logits.subspan(first, std::min<int64_t>(kBlock, size_of(logits) - first));
    const float top = largest(block);
    if (!(top + kMostNoise > best)) continue;
    logit_kernels().noise(seed, position, first, kBlock, bits);
    uint32_t enough = bits_reaching(best - top);
    for (size_t i = 0; i < block.size(); ++i) {
      if (bits[i] < enough) continue;
      const auto id = static_cast<int32_t>(first + static_cast<int64_t>(i));
      const float value = block[i] + gumbel(bits[i]);
      if (!(value > best || (value == best && id < chosen))) continue;
      best = value;
      chosen = id;
      enough = bits_reaching(best - top);
    }
  }
  return chosen;
}

float logprob_of(float logit, double log_total) { return static_cast<float>(static_cast<double>(logit) - log_total); }

}  // namespace

void add_logit_bias(std::span<float> logits, std::span<const std::pair<int32_t, float>> biases) {
  for (const auto& [id, bias] : biases) {
    check_id(id, logits);
    logits[id] += bias;
  }
}

void allow_only(std::span<float> logits, std::span<const int32_t> ids, std::vector<float>& scratch) {
  scratch.clear();
  for (const int32_t id : ids) {
    check_id(id, logits);
    scratch.push_back(logits[id]);
  }
  std::fill(logits.begin(), logits.end(), kBanned);
  for (size_t i = 0; i < ids.size(); ++i) logits[ids[i]] = scratch[i];
}

void ban(std::span<float> logits, std::span<const int32_t> ids) {
  for (const int32_t id : ids) {
    check_id(id, logits);
    logits[id] = kBanned;
  }
}

void apply_penalties(std::span<float> logits, std::span<const TokenUse> uses, const Penalties& p) {
  for (const TokenUse& use : uses) {
    check_id(use.token, logits);
    float& logit = logits[use.token];
    logit = logit > 0 ? logit / p.repetition : logit * p.repetition;
    if (use.output_count > 0) logit -= p.frequency * static_cast<float>(use.output_count) + p.presence;
  }
}

int32_t greedy_token(std::span<const float> logits) {
  const float top = largest(logits);
  if (top == kBanned) return 0;
  return static_cast<int32_t>(logit_kernels().find(logits.data(), size_of(logits), top));
}

void filter_logits(std::span<float> logits, const SampleParams& params, SampleScratch& scratch) {
  MR_CHECK(params.temperature > 0, "temperature {}", params.temperature);
  logit_kernels().scale(logits.data(), size_of(logits), 1.0f / params.temperature);
  keep_min_p(logits, params.min_p);
  keep_top_k(logits, params.top_k, scratch);
  keep_top_p(logits, params.top_p, scratch);
}

int32_t sample_token(std::span<float> logits, const SampleParams& params, uint64_t seed, uint64_t position,
                     SampleScratch& scratch) {
  filter_logits(logits, params, scratch);
  return draw(logits, seed, position);
}

RankedToken token_logprobs(std::span<const float> logits, int32_t chosen, std::span<RankedToken> top,
                           SampleScratch& scratch) {
  check_id(chosen, logits);
  MR_CHECK(top.size() <= logits.size(), "{} best of {}", top.size(), logits.size());
  const int64_t n = size_of(logits);
  const float highest = largest(logits);
  const double log_total =
      highest == kBanned ? 0.0 : highest + std::log(logit_kernels().sum_exp(logits.data(), n, highest));
  const auto ranked = [&](int32_t id, int64_t larger) {
    return RankedToken{id, logprob_of(logits[id], log_total), static_cast<int32_t>(1 + larger)};
  };
  if (!top.empty()) best_tokens(logits, static_cast<int64_t>(top.size()), scratch);
  const size_t found = top.empty() ? 0 : scratch.indices.size();
  for (size_t i = 0; i < found; ++i) {
    const int32_t id = scratch.indices[i];
    const bool tied = i > 0 && logits[id] == logits[scratch.indices[i - 1]];
    top[i] = ranked(id, tied ? top[i - 1].rank - 1 : static_cast<int64_t>(i));
  }
  for (size_t i = found, id = 0; i < top.size(); ++id)  // fewer than asked for are possible: banned ones follow
    if (!(logits[id] > kBanned)) top[i++] = ranked(static_cast<int32_t>(id), static_cast<int64_t>(found));
  return ranked(chosen, logit_kernels().count_larger(logits.data(), n, logits[chosen]));
}

}  // namespace millrace
