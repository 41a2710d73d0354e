#include "bench/prompt_check.h"

#include <algorithm>

namespace millrace::bench {
namespace {

constexpr int kRounds = 3;
constexpr auto kTimeout = std::chrono::seconds(30);

class ServerTokenizer {
 public:
  ServerTokenizer(const LoadTarget& target, bool add_special_tokens)
      : target_(target), add_special_tokens_(add_special_tokens) {}

  Result<std::vector<int32_t>> encode(const std::string& text) {
    MR_ASSIGN_OR_RETURN(const Json answer, post("/tokenize", {{"model", target_.options.model},
                                                              {"prompt", text},
                                                              {"add_special_tokens", add_special_tokens_}}));
    const auto tokens = answer.find("tokens");
    if (tokens == answer.end() || !tokens->is_array()) return data_loss("/tokenize answers without \"tokens\"");
    std::vector<int32_t> ids;
    for (const Json& id : *tokens) {
      if (!id.is_number_integer()) return data_loss("/tokenize answers with {} for a token", json_excerpt(id));
      ids.push_back(id.get<int32_t>());
    }
    return ids;
  }
  Result<std::string> decode(const std::vector<int32_t>& ids) {
    MR_ASSIGN_OR_RETURN(const Json answer, post("/detokenize", {{"model", target_.options.model}, {"tokens", ids}}));
    const auto text = answer.find("prompt");
    if (text == answer.end() || !text->is_string()) return data_loss("/detokenize answers without \"prompt\"");
    return text->get<std::string>();
  }

 private:
  Result<Json> post(const std::string& path, const Json& body) {
    HttpCall call = target_.call("POST", path, kTimeout);
    call.body = dump_json(body);
    MR_ASSIGN_OR_RETURN(const HttpResponse answer, client_.fetch(std::move(call)));
    if (answer.status != 200) return unavailable("{} answers {} ({})", path, answer.status, http_reason(answer.status));
    MR_ASSIGN_OR_RETURN(Json json, parse_json(answer.body));
    if (!json.is_object()) return data_loss("{} answers with {}", path, json_excerpt(json));
    return json;
  }
  const LoadTarget& target_;
  const bool add_special_tokens_;
  HttpClient client_;
};

// `wanted` tokens from the front of `ids`, which start over where they do not suffice.
std::vector<int32_t> resized(std::vector<int32_t> ids, size_t wanted) {
  const size_t known = ids.size();
  for (size_t i = 0; ids.size() < wanted && known > 0; ++i) ids.push_back(ids[i % known]);
  ids.resize(std::min(ids.size(), wanted));
  return ids;
}

// Whether the server now counts as many as wanted.
Result<bool> recreate(ServerTokenizer& tokenizer, size_t shared_bytes, LoadRequest& request) {
  const auto wanted = static_cast<size_t>(request.prompt_tokens);
  MR_ASSIGN_OR_RETURN(std::vector<int32_t> ids, tokenizer.encode(request.prompt));
  for (int round = 0; ids.size() != wanted && round < kRounds; ++round) {
    MR_ASSIGN_OR_RETURN(std::string text, tokenizer.decode(resized(std::move(ids), wanted)));
    if (shared_bytes > 0 && text.size() >= shared_bytes) text.replace(0, shared_bytes, request.prompt, 0, shared_bytes);
    request.prompt = std::move(text);
    MR_ASSIGN_OR_RETURN(ids, tokenizer.encode(request.prompt));
  }
  request.prompt_tokens = static_cast<int64_t>(ids.size());
  return ids.size() == wanted;
}

}  // namespace

Result<PromptCheck> check_prompts(const LoadTarget& target, bool synthetic, size_t shared_bytes,
                                  std::vector<LoadRequest>& requests) {
  PromptCheck check;
  if (requests.empty() || !requests[0].prompt_ids.empty() || requests[0].prompt_tokens < 1) return check;
  ServerTokenizer tokenizer(target, /*add_special_tokens=*/!synthetic);  // as the client counted
  const Result<std::vector<int32_t>> first = tokenizer.encode(requests[0].prompt);
  if (!first.ok()) return check;
  check.asked = true;
  const auto counted = static_cast<int64_t>(first->size());
  if (counted == requests[0].prompt_tokens) return check;
  check.note = fmt::format("the server counts {} tokens in a prompt of {}", counted, requests[0].prompt_tokens);
  if (!synthetic) return check;
  for (LoadRequest& request : requests) {
    const Result<bool> exact = recreate(tokenizer, shared_bytes, request);
    if (!exact.ok()) return exact.status().at("making prompts by the server's count");
    ++check.recreated;
    check.inexact += !*exact;
  }
  check.note += fmt::format("; {} made anew by its count, {} of them still miss it", check.recreated, check.inexact);
  return check;
}

}  // namespace millrace::bench
