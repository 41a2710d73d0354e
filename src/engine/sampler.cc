#include "engine/sampler.h"

#include <algorithm>
#include <utility>

#include "base/random.h"

namespace millrace {
namespace {

// The streams of a request's answers must not meet those of other seeds.
uint64_t stream_key(uint64_t seed, int index) {
  if (index == 0) return seed;
  const auto bits = philox(seed, static_cast<uint64_t>(index), /*counter_high=*/0x616e7377657273u);
  return (uint64_t{bits[0]} << 32) | bits[1];
}

}  // namespace

PositionLogprobs position_logprobs(std::span<const float> logits, int32_t chosen, int top, SamplerScratch& scratch) {
  const auto convert = [](const RankedToken& t) { return TokenLogprob{t.token, t.logprob, t.rank}; };
  scratch.top.resize(std::min(static_cast<size_t>(top), logits.size()));
  PositionLogprobs out{.chosen = convert(token_logprobs(logits, chosen, scratch.top, scratch.ops))};
  out.top.reserve(scratch.top.size());
  for (const RankedToken& token : scratch.top) out.top.push_back(convert(token));
  return out;
}

TokenSampler::TokenSampler(std::shared_ptr<const GenerationRequest> request, int index, uint64_t seed,
                           std::span<const int32_t> eos_token_ids, bool processed_logprobs)
    : request_(std::move(request)),
      key_(stream_key(seed, index)),
      processed_logprobs_(processed_logprobs),
      eos_token_ids_(eos_token_ids) {}

bool TokenSampler::penalizes() const {
  return params().repetition_penalty != 1 || params().frequency_penalty != 0 || params().presence_penalty != 0;
}

TokenUse& TokenSampler::use(int32_t token) {
  const auto [it, fresh] = place_of_use_.try_emplace(token, uses_.size());
  if (fresh) uses_.push_back({token, 0});
  return uses_[it->second];
}

bool TokenSampler::changes_logits(int64_t generated) const {
  const SamplingParams& p = params();
  return !p.greedy() || penalizes() || !p.logit_bias.empty() || !p.allowed_token_ids.empty() ||
         generated < p.min_tokens;
}

TokenSampler::Choice TokenSampler::choose(std::span<float> logits, int64_t position, int64_t generated,
                                          SamplerScratch& scratch) {
  const SamplingParams& p = params();
  const bool keep_raw = p.logprobs.has_value() && !processed_logprobs_ && changes_logits(generated);
  if (keep_raw) scratch.raw.assign(logits.begin(), logits.end());
  process(logits, generated, scratch);
  Choice choice;
  if (p.greedy()) {
    choice.token = greedy_token(logits);
  } else {
    const SampleParams shape{.temperature = static_cast<float>(p.temperature),
                             .top_k = p.top_k,
                             .top_p = static_cast<float>(p.top_p),
                             .min_p = static_cast<float>(p.min_p)};
    const bool filtered_wanted = p.logprobs.has_value() && processed_logprobs_;
    choice.token = (filtered_wanted ? sample_token : draw_token)(logits, shape, key_, static_cast<uint64_t>(position),
                                                                 scratch.ops);
  }
  if (p.logprobs.has_value()) {
    const std::span<const float> of = keep_raw ? std::span<const float>(scratch.raw) : logits;
    choice.logprobs = position_logprobs(of, choice.token, *p.logprobs, scratch);
  }
  return choice;
}

void TokenSampler::process(std::span<float> logits, int64_t generated, SamplerScratch& scratch) {
  const SamplingParams& p = params();
  if (!p.allowed_token_ids.empty()) allow_only(logits, p.allowed_token_ids, scratch.values);
  add_logit_bias(logits, p.logit_bias);
  if (generated < p.min_tokens) ban_ends(logits);
  if (penalizes()) penalize(logits);
}

// Stop ids need not be in the vocabulary.
void TokenSampler::ban_ends(std::span<float> logits) const {
  for (const std::span<const int32_t> ids : {eos_token_ids_, std::span<const int32_t>(params().stop_token_ids)}) {
    for (const int32_t id : ids) {
      if (id >= 0 && static_cast<size_t>(id) < logits.size()) ban(logits, {&id, 1});
    }
  }
}

void TokenSampler::penalize(std::span<float> logits) {
  if (uses_.empty()) {
    for (const int32_t token : request_->prompt_token_ids) use(token);
  }
  apply_penalties(logits, uses_,
                  {.repetition = static_cast<float>(params().repetition_penalty),
                   .frequency = static_cast<float>(params().frequency_penalty),
                   .presence = static_cast<float>(params().presence_penalty)});
}

void TokenSampler::accept(int32_t token) {
  if (penalizes()) ++use(token).output_count;
}

}  // namespace millrace
