// From a row of logits [V] to a token and its log-probabilities. Everything here works on one row on the calling
// thread; rows are independent. Order of use (docs: serving, sampling): allowed tokens, bias, minimum length (ban),
// penalties, then greedy_token or sample_token. A banned token's logit is minus infinity. Ties: the lower id wins.
#pragma once
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace millrace {

// logits[id] += bias for each pair; ids in [0, V).
void add_logit_bias(std::span<float> logits, std::span<const std::pair<int32_t, float>> biases);
// Bans all tokens but these / just these; ids in [0, V), any order.
void allow_only(std::span<float> logits, std::span<const int32_t> ids, std::vector<float>& scratch);
void ban(std::span<float> logits, std::span<const int32_t> ids);

// A token that occurs in the prompt or the output; each token once.
struct TokenUse {
  int32_t token;
  int32_t output_count;  // 0: in the prompt only
};
struct Penalties {
  float repetition = 1;  // l > 0 ? l / r : l * r, prompt and output
  float frequency = 0;   // l -= f * output_count
  float presence = 0;    // l -= p where output_count > 0
};
// Repetition first, then frequency and presence.
void apply_penalties(std::span<float> logits, std::span<const TokenUse> uses, const Penalties& penalties);

// The token with the largest logit; 0 where all are banned.
int32_t greedy_token(std::span<const float> logits);

struct SampleParams {
  float temperature = 1;  // above 0
  int64_t top_k = 0;      // 0 or less: off. Ties with the k-th value stay.
  float top_p = 1;        // drops the smallest values whose probabilities add up to at most 1 - p; the best one stays
  float min_p = 0;        // drops probabilities below min_p times the largest
};
// Memory for sample_token and token_logprobs, kept from step to step so that nothing is allocated in a steady one.
struct SampleScratch {
  std::vector<int32_t> indices, edge;
  std::vector<float> values;
  struct Block {      // of neighbouring logits
    float top, mass;  // the largest, and the sum of e^(logit - top)
  };
  std::vector<Block> blocks;
};
// Divides by the temperature and bans what min-p, then top-k, then top-p drop. Afterwards `logits` are those the
// token is drawn from.
void filter_logits(std::span<float> logits, const SampleParams& params, SampleScratch& scratch);
// filter_logits, then draws: argmax of probability / e_i, e_i exponential noise that is a pure function of
// (seed, position, token id). So the draw depends on nothing else that runs.
int32_t sample_token(std::span<float> logits, const SampleParams& params, uint64_t seed, uint64_t position,
                     SampleScratch& scratch);

// What sample_token returns, often in fewer passes; what is left in `logits` is unspecified.
int32_t draw_token(std::span<float> logits, const SampleParams& params, uint64_t seed, uint64_t position,
                   SampleScratch& scratch);

struct RankedToken {
  int32_t token;
  float logprob;
  int32_t rank;  // 1 + number of tokens with a strictly larger logit
};
// Natural logarithm of softmax(logits) at `chosen` and at the top.size() best tokens, best first (ties: lower id
// first). A token that is both has the same float in both. Requires top.size() <= V.
RankedToken token_logprobs(std::span<const float> logits, int32_t chosen, std::span<RankedToken> top,
                           SampleScratch& scratch);

}  // namespace millrace
