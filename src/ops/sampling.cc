#include "ops/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "base/check.h"
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

// Logits from `low` to below `high`: the mass of tokens from `high` on is `above` and not enough, that from `low` on
// is.
struct Bracket {
  float low, high;
  double above;
};
// The part of a bracket that two neighbours of `bounds`, which fall, enclose. masses[b]: of its tokens from bounds[b]
// on.
Bracket part_of(const Bracket& b, std::span<const float> bounds, std::span<const double> masses, double enough) {
  Bracket part = b;
  for (size_t i = 0; i < bounds.size(); ++i) {
    if (bounds[i] >= part.high) continue;
    part.low = std::max(bounds[i], b.low);
    if (part.low == b.low || b.above + masses[i] >= enough) return part;
    part = {b.low, bounds[i], b.above + masses[i]};
  }
  return part;
}

// Logits that lie in a bracket, and their ids.
struct Inside {
  float* values;
  int32_t* ids;
  int64_t count;
};

// Cuts the bracket down by sums over what lies inside, until few lie there or just one value.
void narrow(Bracket& bracket, Inside& inside, float top, double enough) {
  constexpr int64_t kFewEnough = 64;
  const LogitKernels& kernels = logit_kernels();
  while (inside.count > kFewEnough) {
    float bounds[kMassBounds];
    double masses[kMassBounds];
    const float step = (bracket.high - bracket.low) / (kMassBounds + 1);
    for (int i = 0; i < kMassBounds; ++i) bounds[i] = bracket.low + step * static_cast<float>(kMassBounds - i);
    kernels.masses(inside.values, inside.count, top, bounds, masses);
    const Bracket part = part_of(bracket, bounds, masses, enough);
    if (part.low == bracket.low && part.high == bracket.high) return;
    bracket = part;
    inside.count =
        kernels.between(inside.values, inside.ids, inside.count, part.low, part.high, inside.values, inside.ids);
  }
}

// A token stays while the mass of all better ones is below p of the total. `top` is the largest logit.
void keep_top_p(std::span<float> logits, float p, float top, SampleScratch& scratch) {
  constexpr int64_t kFew = 1024;
  // Where to look first, below the top; beyond the last there is no mass.
  constexpr float kDistances[kMassBounds] = {1, 2.5f, 4, 6, 8, 10.5f, 14, 100};
  if (p >= 1 || !std::isfinite(top)) return;
  const LogitKernels& kernels = logit_kernels();
  const int64_t n = size_of(logits);
  int64_t seen = 0;
  std::vector<int32_t>& ids = scratch.indices;
  ids.resize(kFew);
  ids.resize(kernels.collect(logits.data(), n, std::numeric_limits<float>::lowest(), 0, ids.data(), kFew, &seen));
  if (seen == n) return keep_top_p_of_few(logits, p, ids);
  float bounds[kMassBounds];
  double masses[kMassBounds];
  for (int i = 0; i < kMassBounds; ++i) bounds[i] = top - kDistances[i];
  kernels.masses(logits.data(), n, top, bounds, masses);
  const double enough = static_cast<double>(p) * masses[kMassBounds - 1];
  const Bracket all{bounds[kMassBounds - 1], std::nextafter(top, std::numeric_limits<float>::infinity()), 0};
  Bracket bracket = part_of(all, bounds, masses, enough);
  scratch.edge.resize(logits.size()), scratch.values.resize(logits.size());
  Inside inside{scratch.values.data(), scratch.edge.data(), 0};
  inside.count = kernels.between(logits.data(), nullptr, n, bracket.low, bracket.high, inside.values, inside.ids);
  narrow(bracket, inside, top, enough);
  const std::span<int32_t> edge(inside.ids, static_cast<size_t>(inside.count));
  std::sort(edge.begin(), edge.end(), Better{logits});
  ban_after(logits, edge, top, bracket.above, enough);
  kernels.ban_below(logits.data(), n, bracket.low);
}

void keep_min_p(std::span<float> logits, float min_p, float top) {
  if (min_p > 0 && top > kBanned) drop_below(logits, std::min(top, top + std::log(min_p)));
}

struct Favourite {
  int32_t token;
  float value;  // logit + noise
};

// The best of the tokens seen so far, best first, the lower id on ties: all that reach `bound`, `most` at most.
struct Favourites {
  static constexpr int kRoom = 4;
  int most = 1, count = 0;
  float bound = kBanned;
  Favourite best[kRoom] = {};

  void add(const Favourite& added) {
    const auto precedes = [](const Favourite& a, const Favourite& b) {
      return a.value > b.value || (a.value == b.value && a.token < b.token);
    };
    int at = count;
    for (; at > 0 && precedes(added, best[at - 1]); --at)
      if (at < most) best[at] = best[at - 1];
    if (at >= most) return;
    best[at] = added;
    count = std::min(count + 1, most);
    if (count == most) bound = std::max(bound, best[most - 1].value);
  }
};

// Lets tokens [begin, end) compete, `begin` a multiple of 128. `top` is their largest logit.
void compete(std::span<const float> logits, int64_t begin, int64_t end, float top, const NoiseKey& key,
             Favourites& found) {
  constexpr int64_t kAtOnce = 256;
  int32_t ids[kAtOnce];
  uint32_t bits[kAtOnce];
  const LogitKernels& kernels = logit_kernels();
  if (top == kBanned) return;
  if (found.bound == kBanned) {
    const int64_t id = begin + kernels.find(logits.data() + begin, end - begin, top);
    found.bound = top + gumbel(philox(key.seed, static_cast<uint64_t>(id) / 4, key.position)[id % 4]);
  }
  for (int64_t from = begin; from < end;) {
    const int64_t count = kernels.contenders(logits.data(), end, found.bound, key, from, ids, bits, kAtOnce, &from);
    for (int64_t i = 0; i < count; ++i)
      if (const float value = logits[ids[i]] + gumbel(bits[i]); value >= found.bound) found.add({ids[i], value});
  }
}

// argmax of logit + noise, the lower id on ties; 0 where all are banned. `top` is the largest logit.
int32_t draw(std::span<const float> logits, float top, const NoiseKey& key) {
  Favourites found;
  compete(logits, 0, size_of(logits), top, key, found);
  return found.best[0].token;
}

// Scales the row, lets all of its tokens compete and notes e^(logit - its block's top) in scratch.values, a block at a
// time. Returns the row's top.
float compete_scaled(std::span<float> logits, float factor, const NoiseKey& key, SampleScratch& scratch,
                     Favourites& found) {
  const LogitKernels& kernels = logit_kernels();
  scratch.values.resize(logits.size());
  scratch.blocks.clear();
  float row_top = kBanned;
  for (int64_t begin = 0; begin < size_of(logits); begin += kLogitBlock) {
    const int64_t end = std::min(size_of(logits), begin + kLogitBlock);
    float* const block = logits.data() + begin;
    const float top = kernels.scale(block, end - begin, factor);
    const float shift = std::isfinite(top) ? top : 0;
    const float mass = kernels.exponentials(block, end - begin, shift, scratch.values.data() + begin);
    scratch.blocks.push_back({top, mass});
    compete(logits, begin, end, top, key, found);
    row_top = std::max(row_top, top);
  }
  return row_top;
}

// The mass of all tokens that compete_scaled noted, in units of e^top, the row's.
double noted_mass(float top, const SampleScratch& scratch) {
  double total = 0;
  for (const auto& [block_top, mass] : scratch.blocks)
    if (block_top > kBanned) total += mass * std::exp(static_cast<double>(block_top) - top);
  return total;
}

// Of those among them whose own mass is at least `factor` times that of a token of this logit.
double noted_mass_from(float logit, double factor, float top, const SampleScratch& scratch) {
  double sum = 0;
  for (size_t block = 0; block < scratch.blocks.size(); ++block) {
    const float block_top = scratch.blocks[block].top;
    if (!(block_top >= logit)) continue;
    const auto from = static_cast<int64_t>(block) * kLogitBlock;
    const int64_t n = std::min(std::ssize(scratch.values) - from, kLogitBlock);
    const auto least = static_cast<float>(factor * std::exp(static_cast<double>(logit) - block_top));
    sum += logit_kernels().sum_at_least(scratch.values.data() + from, n, least) *
           std::exp(static_cast<double>(block_top) - top);
  }
  return sum;
}

// Whether a token of this logit stays where top-p drops others, by what compete_scaled noted. Those masses differ a
// little from the ones that decide, and do not tell ties apart: nothing where that could matter.
std::optional<bool> stays(float logit, float p, float top, const SampleScratch& scratch) {
  constexpr double kRoom = 1e-3, kSame = 5e-4;
  const double total = noted_mass(top, scratch), own = std::exp(static_cast<double>(logit) - top);
  if (noted_mass_from(logit, 1 - kSame, top, scratch) - own <= (p - kRoom) * total) return true;
  if (noted_mass_from(logit, 1 + kSame, top, scratch) >= (p + kRoom) * total) return false;
  return std::nullopt;
}

// Returns the largest of the logits that are left.
float scale_and_filter(std::span<float> logits, const SampleParams& params, SampleScratch& scratch) {
  MR_CHECK(params.temperature > 0, "temperature {}", params.temperature);
  const float top = logit_kernels().scale(logits.data(), size_of(logits), 1.0f / params.temperature);
  keep_min_p(logits, params.min_p, top);
  keep_top_k(logits, params.top_k, scratch);
  keep_top_p(logits, params.top_p, top, scratch);
  return top;
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
  scale_and_filter(logits, params, scratch);
}

int32_t sample_token(std::span<float> logits, const SampleParams& params, uint64_t seed, uint64_t position,
                     SampleScratch& scratch) {
  const float top = scale_and_filter(logits, params, scratch);
  return draw(logits, top, {seed, position});
}

// Of all tokens in the order of logit + noise, the first that top-p leaves is the one that wins among those it leaves.
int32_t draw_token(std::span<float> logits, const SampleParams& params, uint64_t seed, uint64_t position,
                   SampleScratch& scratch) {
  constexpr float kOftenEnough = 0.5f;  // below, too many of the first are dropped
  MR_CHECK(params.temperature > 0, "temperature {}", params.temperature);
  if (params.top_k > 0 || params.min_p > 0 || params.top_p < kOftenEnough || params.top_p >= 1)
    return sample_token(logits, params, seed, position, scratch);
  const NoiseKey key{seed, position};
  Favourites found{.most = Favourites::kRoom};
  const float top = compete_scaled(logits, 1.0f / params.temperature, key, scratch, found);
  for (int i = 0; i < found.count && std::isfinite(top); ++i) {
    const int32_t token = found.best[i].token;
    const std::optional<bool> left = stays(logits[token], params.top_p, top, scratch);
    if (!left.has_value()) break;
    if (*left) return token;
  }
  keep_top_p(logits, params.top_p, top, scratch);
  return draw(logits, top, key);
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
