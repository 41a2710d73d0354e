// The completion protocols a load is sent through: what a request looks like and what an answer's stream says. One row
// per protocol in back_end.cc; whoever sends knows no protocol.
// Answers are not trusted: any bytes may come, every figure of theirs is checked before use.
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "bench/record.h"
#include "net/sse.h"
#include "tokenizer/tokenizer.h"

namespace millrace::bench {

// One request of a load.
struct LoadRequest {
  std::vector<int32_t> prompt_ids;      // sent as ids where the protocol takes them; empty: `prompt` is sent
  std::string prompt;                   // text
  std::vector<std::string> image_urls;  // data URLs or addresses; openai-chat only
  std::string model;                    // for this request alone, such as an adapter's name; "": the options' model
  int64_t prompt_tokens = kUnknown;     // as the client counts them
  int64_t output_tokens = 0;            // at most; exactly, where ignore_eos is understood
};

struct RequestOptions {
  std::string model;
  bool ignore_eos = true;
  bool include_usage = true, continuous_usage = true;  // openai and openai-chat: stream_options
  double temperature = 0;
  std::optional<double> top_p;
  std::optional<int64_t> top_k;
  int64_t best_of = 1;               // 1: not said, except to tgi
  bool use_beam_search = false;      // of best_of beams
  Json extra_body = Json::object();  // merged last
};

// What one event of a stream says.
struct EventContent {
  std::string text;              // newly generated, any channel; or everything so far if cumulative_text
  bool cumulative_text = false;  // `text` starts with the prompt and repeats what came before
  bool token = false;            // the protocol says: this event is exactly one token
  bool generation = true;        // false: counts only, at the end of a stream
  int64_t output_tokens = kUnknown, prompt_tokens = kUnknown, cached_tokens = kUnknown;  // totals so far
  std::string error;
};

enum class Framing {
  kServerSentEvents,
  kLines,  // one JSON text per line or zero byte, "data:" in front or not
  kWhole,  // the body is one JSON text
};

struct BackEnd {
  const char* name;
  const char* path;
  Framing framing;
  bool takes_ids;  // prompt as a list of token ids
  bool takes_images;
  bool generates;  // false: the answer holds no generated tokens
  Json (*body)(const LoadRequest& request, const RequestOptions& options);
  void (*read)(const Json& event, EventContent& content);
};
// kInvalidArgument names the known ones.
Result<const BackEnd*> find_back_end(std::string_view name);
std::string request_body(const BackEnd& back_end, const LoadRequest& request, const RequestOptions& options);

// Reads the body of one answer into its record: token events with their times, counts, and the text if wanted. One
// thread at a time; the record and the tokenizer must outlive it.
class AnswerReader {
 public:
  // `tokenizer` counts the output where the server states no count; may be null. `prompt` is what a cumulative text
  // starts with.
  AnswerReader(const BackEnd& back_end, RequestRecord& record, std::string prompt, const Tokenizer* tokenizer,
               bool keep_text);
  // Bytes of one read that returned at `at_s`.
  void feed(std::string_view bytes, double at_s);
  // The body has ended: settles the counts. The error, if the answer was one or made no sense.
  Status finish();
  bool failed() const { return !error_.empty(); }

 private:
  void take_lines(std::string_view bytes, double at_s);
  void take_part(std::string_view bytes);
  void take_event(std::string_view data, double at_s);
  void take_counts(const EventContent& content);
  void take_tokens(EventContent& content, double at_s);
  std::string new_text(EventContent& content);
  void count_tokens();
  void spread_tokens();

  const BackEnd& back_end_;
  RequestRecord& record_;
  const std::string prompt_;
  const Tokenizer* const tokenizer_;
  const bool keep_text_;
  SseParser events_;
  std::string line_, text_, error_, first_bytes_;
  double last_read_s_ = 0;
  size_t cumulative_bytes_ = 0;
  int64_t stated_output_ = kUnknown, token_events_ = 0;
  int64_t events_seen_ = 0;
  bool growth_known_ = true;  // every token event stated the total so far
};

}  // namespace millrace::bench
