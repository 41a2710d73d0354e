#include "net/sse.h"

#include <gtest/gtest.h>

#include "net/http.h"

namespace millrace {
namespace {

std::vector<std::string> parse_in_pieces(std::string_view text, size_t piece) {
  std::vector<std::string> events;
  SseParser parser;
  for (size_t at = 0; at < text.size(); at += piece)
    EXPECT_TRUE(parser.feed(text.substr(at, piece), [&](std::string_view data) { events.emplace_back(data); }));
  return events;
}

TEST(Sse, EventsAreTheSameHoweverTheBytesAreCut) {
  const std::string text = sse_event("{\"a\":1}") + ": a comment\n\nevent: x\r\ndata: two\r\ndata:lines\r\n\r\n" +
                           "data: cr\r\rid: 7\n\ndata\n\n" + sse_event("[DONE]");
  const std::vector<std::string> expected = {"{\"a\":1}", "two\nlines", "cr", "", "[DONE]"};
  for (size_t piece = 1; piece <= text.size(); ++piece) EXPECT_EQ(parse_in_pieces(text, piece), expected) << piece;
}

TEST(Sse, AnEventThatNeverEndsIsRefused) {
  SseParser parser(100);
  const auto ignore = [](std::string_view) {};
  EXPECT_TRUE(parser.feed("data: " + std::string(80, 'x'), ignore));
  EXPECT_FALSE(parser.feed(std::string(80, 'x'), ignore));
  EXPECT_FALSE(parser.feed("\n\n", ignore));
}

TEST(Http, PercentEscapesAreDecodedOrRefused) {
  EXPECT_EQ(percent_decode("/v1/a%20b%2Fc"), "/v1/a b/c");
  EXPECT_FALSE(percent_decode("/%2"));
  EXPECT_FALSE(percent_decode("/%zz"));
  EXPECT_FALSE(percent_decode("/%00"));
}

TEST(Http, HeaderNamesIgnoreCase) {
  const HttpRequest request{.headers = {{"X-Request-ID", "7"}}};
  EXPECT_EQ(request.header("x-request-id"), "7");
  EXPECT_EQ(request.header("x-request"), "");
}

}  // namespace
}  // namespace millrace
