#include "bench/back_end.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/text.h"
#include "base/utf8.h"
#include "bench/json_view.h"

namespace millrace::bench {
namespace {

constexpr size_t kMaxLineBytes = size_t{64} << 20;
constexpr int64_t kMaxTokens = int64_t{1} << 32;  // a stated count above this is nonsense

Json prompt_of(const LoadRequest& request) {
  return request.prompt_ids.empty() ? Json(request.prompt) : Json(request.prompt_ids);
}

void add_stream_options(Json& body, const RequestOptions& options) {
  body["stream"] = true;
  if (!options.include_usage) return;
  body["stream_options"] = {{"include_usage", true}};
  if (options.continuous_usage) body["stream_options"]["continuous_usage_stats"] = true;
}

const std::string& model_of(const LoadRequest& request, const RequestOptions& options) {
  return request.model.empty() ? options.model : request.model;
}

// As vLLM's servers and its client spell them.
void add_sampling(Json& body, const RequestOptions& options) {
  if (options.top_p) body["top_p"] = *options.top_p;
  if (options.top_k) body["top_k"] = *options.top_k;
  if (options.best_of > 1) body["best_of"] = options.best_of;
  if (options.use_beam_search) body["use_beam_search"] = true;
}

// `input` is the member that holds what to go on from.
Json openai_body(const LoadRequest& request, const RequestOptions& options, const char* input, Json value) {
  Json body = {{"model", model_of(request, options)},
               {input, std::move(value)},
               {"max_tokens", request.output_tokens},
               {"temperature", options.temperature}};
  if (options.ignore_eos) body["ignore_eos"] = true;
  add_sampling(body, options);
  add_stream_options(body, options);
  return body;
}

Json completions_body(const LoadRequest& request, const RequestOptions& options) {
  return openai_body(request, options, "prompt", prompt_of(request));
}

Json chat_content(const LoadRequest& request) {
  if (request.image_urls.empty()) return request.prompt;
  Json parts = Json::array({{{"type", "text"}, {"text", request.prompt}}});
  for (const std::string& url : request.image_urls)
    parts.push_back({{"type", "image_url"}, {"image_url", {{"url", url}}}});
  return parts;
}

Json chat_body(const LoadRequest& request, const RequestOptions& options) {
  return openai_body(request, options, "messages",
                     Json::array({{{"role", "user"}, {"content", chat_content(request)}}}));
}

Json generate_body(const LoadRequest& request, const RequestOptions& options) {
  Json body = {{"prompt", request.prompt},
               {"max_tokens", request.output_tokens},
               {"temperature", options.temperature},
               {"ignore_eos", options.ignore_eos},
               {"stream", true}};
  add_sampling(body, options);
  return body;
}

Json tgi_body(const LoadRequest& request, const RequestOptions& options) {
  Json parameters = {{"best_of", options.best_of},
                     {"max_new_tokens", request.output_tokens},
                     {"do_sample", false},
                     {"decoder_input_details", false}};
  if (options.ignore_eos) parameters["ignore_eos_token"] = true;
  return {{"inputs", request.prompt}, {"parameters", parameters}};
}

Json mindspore_body(const LoadRequest& request, const RequestOptions& options) {
  return {{"inputs", request.prompt},
          {"parameters",
           {{"max_new_tokens", request.output_tokens},
            {"do_sample", false},
            {"ignore_eos", options.ignore_eos},
            {"return_full_text", false}}},
          {"stream", true}};
}

// The server counts the prompt into max_tokens.
Json base_body(const LoadRequest& request, const RequestOptions& options) {
  return {{"prompt", request.prompt},
          {"max_tokens", std::max<int64_t>(request.prompt_tokens, 0) + request.output_tokens},
          {"model_name", model_of(request, options)},
          {"do_sample", false},
          {"stream", true},
          {"debug", 2}};
}

Json trt_body(const LoadRequest& request, const RequestOptions& options) {
  Json body = {{"text_input", request.prompt}, {"max_tokens", request.output_tokens}, {"stream", true}};
  if (options.ignore_eos) body["min_length"] = request.output_tokens;
  if (options.temperature > 0) body["temperature"] = options.temperature;
  if (options.top_p) body["top_p"] = *options.top_p;
  if (options.top_k) body["top_k"] = *options.top_k;
  return body;
}

Json embedding_body(const LoadRequest& request, const RequestOptions& options) {
  return {{"model", model_of(request, options)}, {"input", prompt_of(request)}};
}

// The members that the readers below look at; of others nothing is built.
constexpr std::string_view kKeys[] = {"arguments",
                                      "cached_tokens",
                                      "choices",
                                      "completion_tokens",
                                      "content",
                                      "data",
                                      "delta",
                                      "details",
                                      "error",
                                      "function",
                                      "generated_tokens",
                                      "message",
                                      "name",
                                      "prompt_cache_hit_tokens",
                                      "prompt_tokens",
                                      "prompt_tokens_details",
                                      "reasoning",
                                      "reasoning_content",
                                      "text",
                                      "text_output",
                                      "token",
                                      "tool_calls",
                                      "usage"};
static_assert(std::is_sorted(std::begin(kKeys), std::end(kKeys)));

Result<Json> parse_event(std::string_view data) {
  const auto view = JsonView::parse(data);
  if (view && view->at("error").is_null()) return view->to_json(kKeys);
  return parse_json(data);  // an error is shown whole
}

// The value at `key`, or null.
const Json& at(const Json& object, const char* key) {
  static const Json none;
  if (!object.is_object()) return none;
  const auto found = object.find(key);
  return found == object.end() ? none : *found;
}

int64_t count_at(const Json& object, const char* key) {
  const Json& value = at(object, key);
  if (!value.is_number_integer()) return kUnknown;
  const int64_t count = value.get<int64_t>();
  return count < 0 || count > kMaxTokens ? kUnknown : count;
}

void append_text(const Json& value, std::string& text) {
  if (value.is_string()) text += value.get_ref<const std::string&>();
}

void read_error(const Json& event, EventContent& content) {
  const Json& error = at(event, "error");
  if (error.is_null()) return;
  const Json& message = at(error, "message");
  content.error = message.is_string() ? message.get<std::string>() : json_excerpt(error, 200);
}

void read_usage(const Json& event, EventContent& content) {
  const Json& usage = at(event, "usage");
  content.output_tokens = count_at(usage, "completion_tokens");
  content.prompt_tokens = count_at(usage, "prompt_tokens");
  content.cached_tokens = count_at(at(usage, "prompt_tokens_details"), "cached_tokens");
  if (content.cached_tokens == kUnknown) content.cached_tokens = count_at(usage, "prompt_cache_hit_tokens");
}

const Json& first_choice(const Json& event) {
  static const Json none;
  const Json& choices = at(event, "choices");
  return choices.is_array() && !choices.empty() ? choices.front() : none;
}

void read_completions(const Json& event, EventContent& content) {
  read_error(event, content);
  read_usage(event, content);
  content.generation = first_choice(event).is_object();
  append_text(at(first_choice(event), "text"), content.text);
}

void read_chat(const Json& event, EventContent& content) {
  read_error(event, content);
  read_usage(event, content);
  content.generation = first_choice(event).is_object();
  const Json& delta = at(first_choice(event), "delta");
  for (const char* channel : {"reasoning", "reasoning_content", "content"})
    append_text(at(delta, channel), content.text);
  const Json& calls = at(delta, "tool_calls");
  if (!calls.is_array()) return;
  for (const Json& call : calls) {
    append_text(at(at(call, "function"), "name"), content.text);
    append_text(at(at(call, "function"), "arguments"), content.text);
  }
}

void read_generate(const Json& event, EventContent& content) {
  read_error(event, content);
  const Json& text = at(event, "text");
  append_text(text.is_array() && !text.empty() ? text.front() : text, content.text);
  content.cumulative_text = true;
}

void read_token(const Json& event, EventContent& content) {
  read_error(event, content);
  const Json& token = at(event, "token");
  content.token = token.is_object();
  append_text(at(token, "text"), content.text);
  content.output_tokens = count_at(at(event, "details"), "generated_tokens");
}

// {"token": {"text", "index"}}, or {"data": text} in the server's other mode.
void read_mindspore(const Json& event, EventContent& content) {
  read_token(event, content);
  append_text(at(event, "data"), content.text);
}

// Every message is one token: {"token": {"text"}}, {"data": text} or {"text": text}.
void read_base(const Json& event, EventContent& content) {
  read_mindspore(event, content);
  append_text(at(event, "text"), content.text);
  content.token = true;
}

// {"text_output": new text} for each step.
void read_trt(const Json& event, EventContent& content) {
  read_error(event, content);
  const Json& text = at(event, "text_output");
  content.token = text.is_string();
  append_text(text, content.text);
}

void read_embedding(const Json& event, EventContent& content) {
  read_error(event, content);
  read_usage(event, content);
  content.generation = false;
  const Json& data = at(event, "data");
  if (content.error.empty() && (!data.is_array() || data.empty())) content.error = "the answer holds no embedding";
}

constexpr auto kEvents = Framing::kServerSentEvents;
// name, path, framing, takes ids, takes images, generates, body, read
constexpr BackEnd kBackEnds[] = {
    {"openai", "/v1/completions", kEvents, true, false, true, completions_body, read_completions},
    {"openai-chat", "/v1/chat/completions", kEvents, false, true, true, chat_body, read_chat},
    {"vllm", "/generate", Framing::kLines, false, false, true, generate_body, read_generate},
    {"tgi", "/generate_stream", kEvents, false, false, true, tgi_body, read_token},
    {"mindspore", "/models/llama2/generate", Framing::kLines, false, false, true, mindspore_body, read_mindspore},
    {"base", "/v1/generate", Framing::kLines, false, false, true, base_body, read_base},
    {"trt", "/v2/models/ensemble/generate_stream", kEvents, false, false, true, trt_body, read_trt},
    {"embedding", "/v1/embeddings", Framing::kWhole, true, false, false, embedding_body, read_embedding},
};

}  // namespace

Result<const BackEnd*> find_back_end(std::string_view name) {
  std::vector<std::string> names;
  for (const BackEnd& back_end : kBackEnds) {
    if (name == back_end.name) return &back_end;
    names.emplace_back(back_end.name);
  }
  return invalid_argument("back end '{}' is not known{}; there are {}", name, did_you_mean(name, names),
                          fmt::join(names, ", "));
}

std::string request_body(const BackEnd& back_end, const LoadRequest& request, const RequestOptions& options) {
  Json body = back_end.body(request, options);
  body.update(options.extra_body);
  return dump_json(body);
}

AnswerReader::AnswerReader(const BackEnd& back_end, RequestRecord& record, std::string prompt,
                           const Tokenizer* tokenizer, bool keep_text)
    : back_end_(back_end), record_(record), prompt_(std::move(prompt)), tokenizer_(tokenizer), keep_text_(keep_text) {}

void AnswerReader::feed(std::string_view bytes, double at_s) {
  if (failed()) return;
  last_read_s_ = at_s;
  if (first_bytes_.size() < 200) first_bytes_ += bytes.substr(0, 200 - first_bytes_.size());
  if (back_end_.framing == Framing::kLines) return take_lines(bytes, at_s);
  if (back_end_.framing == Framing::kWhole) return take_part(bytes);
  if (!events_.feed(bytes, [&](std::string_view data) { take_event(data, at_s); }))
    error_ = "an event of the answer is longer than 64 MiB";
}

void AnswerReader::take_lines(std::string_view bytes, double at_s) {
  while (!bytes.empty() && !failed()) {
    const size_t end = bytes.find_first_of(std::string_view("\n\0", 2));
    line_ += bytes.substr(0, end);
    if (line_.size() > kMaxLineBytes) error_ = "a line of the answer is longer than 64 MiB";
    if (end == std::string_view::npos) return;
    bytes.remove_prefix(end + 1);
    std::string_view line = trim(line_);
    if (line.starts_with("data:")) line = trim(line.substr(5));
    if (!line.empty() && line.front() == '{') take_event(line, at_s);
    line_.clear();
  }
}

void AnswerReader::take_part(std::string_view bytes) {
  line_ += bytes;
  if (line_.size() > kMaxLineBytes) error_ = "the answer is longer than 64 MiB";
}

void AnswerReader::take_event(std::string_view data, double at_s) {
  if (failed() || data == "[DONE]") return;
  const Result<Json> event = parse_event(data);
  if (!event.ok()) {
    error_ = "an event of the answer is not JSON: " + event.status().message();
    return;
  }
  ++events_seen_;
  EventContent content;
  back_end_.read(*event, content);
  if (!content.error.empty()) {
    error_ = content.error;
    return;
  }
  take_tokens(content, at_s);
  take_counts(content);
}

// The part of a cumulative text that is new; `text` itself otherwise.
std::string AnswerReader::new_text(EventContent& content) {
  if (!content.cumulative_text) return std::move(content.text);
  std::string_view all = content.text;
  if (all.starts_with(prompt_)) all.remove_prefix(prompt_.size());
  const size_t known = std::min(cumulative_bytes_, all.size());
  cumulative_bytes_ = std::max(cumulative_bytes_, all.size());
  return std::string(all.substr(known));
}

void AnswerReader::take_tokens(EventContent& content, double at_s) {
  const std::string text = new_text(content);
  const bool stated = content.output_tokens != kUnknown && !content.token;
  const int64_t growth =
      stated ? std::max<int64_t>(content.output_tokens - std::max<int64_t>(stated_output_, 0), 0) : 0;
  // A total after events that stated none speaks of tokens that came before.
  const bool silent_growth = content.generation && growth > 0 && growth_known_;
  if (!content.token && text.empty() && !silent_growth) return;
  growth_known_ = growth_known_ && stated;
  token_events_ += content.token;
  if (!record_.chunks.empty() && record_.chunks.back().at_s == at_s) ++record_.coalesced_events;
  if (record_.first_token_s == kNever) record_.first_token_s = at_s;
  record_.last_token_s = at_s;
  record_.chunks.push_back({at_s, content.token ? 1.0 : static_cast<double>(growth)});
  if (keep_text_ || tokenizer_ != nullptr) text_ += text;
}

void AnswerReader::take_counts(const EventContent& content) {
  if (content.output_tokens != kUnknown) stated_output_ = std::max(stated_output_, content.output_tokens);
  if (content.cached_tokens != kUnknown) record_.cached_tokens = content.cached_tokens;
  if (content.prompt_tokens == kUnknown) return;
  record_.prompt_tokens = content.prompt_tokens;
  record_.prompt_source = CountSource::kUsage;
}

void AnswerReader::count_tokens() {
  if (!back_end_.generates) {
    record_.last_token_s = last_read_s_;  // the end of the answer stands for that of its tokens
    record_.output_tokens = 0;
    record_.output_source = CountSource::kProtocol;
  } else if (stated_output_ != kUnknown) {
    record_.output_tokens = stated_output_;
    record_.output_source = token_events_ > 0 ? CountSource::kProtocol : CountSource::kUsage;
  } else if (token_events_ > 0) {
    record_.output_tokens = token_events_;
    record_.output_source = CountSource::kProtocol;
  } else if (tokenizer_ != nullptr) {
    const auto ids = tokenizer_->encode(text_, {.add_special_tokens = false});
    if (!ids.ok()) return;
    record_.output_tokens = static_cast<int64_t>(ids->size());
    record_.output_source = CountSource::kTokenizer;
  }
}

// Without the growth of every event the total is spread evenly: times of single tokens are then estimates.
void AnswerReader::spread_tokens() {
  if (record_.chunks.empty() || token_events_ > 0) return;
  if (growth_known_ && stated_output_ != kUnknown) return;
  record_.chunk_tokens_estimated = true;
  const double each = record_.output_tokens == kUnknown
                          ? 0
                          : static_cast<double>(record_.output_tokens) / static_cast<double>(record_.chunks.size());
  for (Chunk& chunk : record_.chunks) chunk.tokens = each;
}

Status AnswerReader::finish() {
  if (!failed() && back_end_.framing == Framing::kLines && !line_.empty()) take_lines("\n", last_read_s_);
  if (!failed() && back_end_.framing == Framing::kWhole && !line_.empty()) take_event(line_, last_read_s_);
  count_tokens();
  spread_tokens();
  if (keep_text_) record_.text = std::move(text_);
  if (failed()) return data_loss("{}", utf8_replace_invalid(error_.substr(0, 500)));
  if (events_seen_ == 0)
    return data_loss("the answer holds no event of the {} protocol; it begins '{}'", back_end_.name,
                     utf8_replace_invalid(first_bytes_));
  return {};
}

}  // namespace millrace::bench
