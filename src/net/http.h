// HTTP messages as plain values, shared by the server and the client side.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

struct HttpHeader {
  std::string name, value;
};
// The value of the first header with this name (case does not matter), or "".
std::string_view find_header(const std::vector<HttpHeader>& headers, std::string_view name);

struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // of the target, percent-decoded
  std::string query;   // of the target after '?', as received
  std::vector<HttpHeader> headers;
  std::string body;
  std::string peer;  // "127.0.0.1:50412"
  std::string_view header(std::string_view name) const { return find_header(headers, name); }
};

// A whole answer, or the head of a streamed one (whose `body` is its first chunk). Content-Length, Transfer-Encoding,
// Connection, Date and Server are the server's to add.
struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";  // "": no Content-Type
  std::vector<HttpHeader> headers;
  std::string body;
  std::string_view header(std::string_view name) const { return find_header(headers, name); }
};

// "Not Found" for 404; "Unknown" for what has no name.
std::string_view http_reason(int status);
// Nothing if `text` has a broken escape or decodes to a zero byte.
std::optional<std::string> percent_decode(std::string_view text);
// Letters only differ in case.
bool equal_ignoring_case(std::string_view a, std::string_view b);

}  // namespace millrace
