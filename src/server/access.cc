#include "server/access.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace millrace {
namespace {

bool equal_in_constant_time(std::string_view a, std::string_view b) {
  unsigned difference = a.size() != b.size();
  for (size_t i = 0; i < a.size(); ++i)
    difference |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b.empty() ? 0 : b[i % b.size()]);
  return difference == 0;
}

bool allows(const std::vector<std::string>& list, std::string_view name) {
  return std::any_of(list.begin(), list.end(), [&](const std::string& entry) { return entry == "*" || entry == name; });
}

}  // namespace

bool is_authorized(const HttpRequest& request, const std::vector<std::string>& keys) {
  if (keys.empty() || request.method == "OPTIONS" || request.path == "/health" || request.path == "/ping") return true;
  constexpr std::string_view kBearer = "Bearer ";
  const std::string_view given = request.header("Authorization");
  if (given.size() < kBearer.size() || !equal_ignoring_case(given.substr(0, kBearer.size()), kBearer)) return false;
  bool match = false;
  for (const std::string& key : keys) match |= equal_in_constant_time(given.substr(kBearer.size()), key);
  return match;
}

std::vector<HttpHeader> cors_headers(const HttpRequest& request, const ServerConfig& config) {
  const std::string origin(request.header("Origin"));
  if (origin.empty() || !allows(config.allowed_origins, origin)) return {};
  const bool any = allows(config.allowed_origins, "*") && !config.allow_credentials;
  std::vector<HttpHeader> headers = {{"Access-Control-Allow-Origin", any ? "*" : origin}};
  if (!any) headers.push_back({"Vary", "Origin"});
  if (config.allow_credentials) headers.push_back({"Access-Control-Allow-Credentials", "true"});
  return headers;
}

bool is_preflight(const HttpRequest& request) {
  return request.method == "OPTIONS" && !request.header("Origin").empty() &&
         !request.header("Access-Control-Request-Method").empty();
}

HttpResponse preflight_response(const HttpRequest& request, const ServerConfig& config) {
  HttpResponse response{.content_type = "text/plain", .headers = cors_headers(request, config), .body = "OK"};
  const bool method_allowed = allows(config.allowed_methods, request.header("Access-Control-Request-Method"));
  if (response.headers.empty() || !method_allowed) {
    response.status = 400;
    response.body = response.headers.empty() ? "Disallowed CORS origin" : "Disallowed CORS method";
    return response;
  }
  const bool any_header = allows(config.allowed_headers, "*");
  const std::string asked(request.header("Access-Control-Request-Headers"));
  response.headers.push_back(
      {"Access-Control-Allow-Methods", allows(config.allowed_methods, "*")
                                           ? "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
                                           : fmt::format("{}", fmt::join(config.allowed_methods, ", "))});
  response.headers.push_back(
      {"Access-Control-Allow-Headers",
       any_header ? (asked.empty() ? "*" : asked) : fmt::format("{}", fmt::join(config.allowed_headers, ", "))});
  response.headers.push_back({"Access-Control-Max-Age", "600"});
  return response;
}

}  // namespace millrace
