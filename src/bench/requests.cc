#include "bench/requests.h"

#include <algorithm>
#include <cmath>

namespace millrace::bench {
namespace {

int64_t spread(int64_t tokens, double ratio, Random& random) {
  const double n = static_cast<double>(tokens);
  const auto low = std::max<int64_t>(1, static_cast<int64_t>(std::floor(n * (1 - ratio))));
  const auto high = std::max(low, static_cast<int64_t>(std::ceil(n * (1 + ratio))));
  return low + random.below(static_cast<uint32_t>(high - low + 1));
}

Status check(const RandomLoad& load, int64_t count) {
  constexpr int64_t kMost = int64_t{1} << 24;
  if (count < 1 || count > kMost) return invalid_argument("{} requests; 1 to {} are wanted", count, kMost);
  for (const int64_t tokens : {load.input_tokens, load.output_tokens})
    if (tokens < 1 || tokens > kMost)
      return invalid_argument("a length of {} tokens; 1 to {} are wanted", tokens, kMost);
  if (load.prefix_tokens < 0 || load.prefix_tokens > load.input_tokens)
    return invalid_argument("a shared prefix of {} tokens does not fit into prompts of {}", load.prefix_tokens,
                            load.input_tokens);
  if (!(load.range_ratio >= 0 && load.range_ratio < 1))
    return invalid_argument("the range ratio is {}; 0 or more and below 1 is wanted", load.range_ratio);
  return {};
}

}  // namespace

Result<Requests> random_requests(const RandomLoad& load, int64_t count, const BackEnd& back_end,
                                 const std::shared_ptr<const Tokenizer>& tokenizer, uint64_t seed) {
  MR_RETURN_IF_ERROR(check(load, count));
  Random lengths(seed);
  PromptMaker maker(tokenizer, seed ^ 0x9E3779B97F4A7C15u);
  const std::vector<int32_t> prefix = maker.ids(load.prefix_tokens);
  std::string prefix_text;
  if (!back_end.takes_ids && load.prefix_tokens > 0) {
    MR_ASSIGN_OR_RETURN(PromptMaker::Text text, maker.text(load.prefix_tokens));
    prefix_text = std::move(text.text);
  }
  Requests made{.shared_bytes = prefix_text.size()};
  for (int64_t i = 0; i < count; ++i) {
    LoadRequest request{.prompt_tokens = spread(load.input_tokens, load.range_ratio, lengths),
                        .output_tokens = spread(load.output_tokens, load.range_ratio, lengths)};
    const int64_t own = std::max<int64_t>(request.prompt_tokens - load.prefix_tokens, 0);
    if (back_end.takes_ids) {
      request.prompt_ids = prefix;
      const std::vector<int32_t> rest = maker.ids(own);
      request.prompt_ids.insert(request.prompt_ids.end(), rest.begin(), rest.end());
      request.prompt_tokens = static_cast<int64_t>(request.prompt_ids.size());
    } else {
      MR_ASSIGN_OR_RETURN(const PromptMaker::Text text, maker.text(own));
      made.inexact += !text.exact;
      request.prompt = prefix_text + text.text;
      request.prompt_tokens = load.prefix_tokens + text.tokens;
    }
    made.requests.push_back(std::move(request));
  }
  return made;
}

namespace {

// Nothing for rows that the limits leave out.
Result<std::optional<LoadRequest>> pair_request(const data::TextPair& pair, const PairLoad& load,
                                                const Tokenizer& tokenizer) {
  MR_ASSIGN_OR_RETURN(const std::vector<int32_t> prompt, tokenizer.encode(pair.prompt));
  MR_ASSIGN_OR_RETURN(const std::vector<int32_t> reference,
                      tokenizer.encode(pair.reference, {.add_special_tokens = false}));
  LoadRequest request{.prompt = pair.prompt, .prompt_tokens = static_cast<int64_t>(prompt.size())};
  request.output_tokens = load.output_tokens.value_or(static_cast<int64_t>(reference.size()));
  if (request.prompt_tokens < load.min_tokens || request.prompt_tokens > load.max_prompt_tokens)
    return std::optional<LoadRequest>();
  if (!load.output_tokens && request.output_tokens < load.min_tokens) return std::optional<LoadRequest>();
  const int64_t room = load.max_total_tokens - request.prompt_tokens;
  if (request.output_tokens > room && (!load.cut_to_total || room < 1)) return std::optional<LoadRequest>();
  request.output_tokens = std::min(request.output_tokens, room);
  return std::optional<LoadRequest>(std::move(request));
}

}  // namespace

Result<Requests> pair_requests(const std::vector<data::TextPair>& pairs, const PairLoad& load, int64_t count,
                               const Tokenizer& tokenizer, uint64_t seed) {
  std::vector<size_t> order(pairs.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  Random random(seed);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(static_cast<uint32_t>(i))]);
  Requests made;
  for (const size_t row : order) {
    if (static_cast<int64_t>(made.requests.size()) == count) break;
    MR_ASSIGN_OR_RETURN(std::optional<LoadRequest> request, pair_request(pairs[row], load, tokenizer));
    if (request) made.requests.push_back(std::move(*request));
  }
  if (made.requests.empty())
    return invalid_argument("none of the {} rows has {} to {} prompt tokens and fits into {} with its output",
                            pairs.size(), load.min_tokens, load.max_prompt_tokens, load.max_total_tokens);
  const size_t distinct = made.requests.size();
  for (size_t i = 0; static_cast<int64_t>(made.requests.size()) < count; ++i) {
    made.requests.push_back(made.requests[i % distinct]);
    ++made.repeated;
  }
  return made;
}

}  // namespace millrace::bench
