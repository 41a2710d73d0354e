// Who may call: API keys, and the CORS headers that let browsers in.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "net/http.h"
#include "server/config.h"

namespace millrace {

// True without keys, for OPTIONS, for /health and /ping, and with "Authorization: Bearer <one of the keys>". The
// comparison takes the same time wherever keys differ.
bool is_authorized(const HttpRequest& request, const std::vector<std::string>& keys);

// Headers for an answer to a page from another origin; none for other requests.
std::vector<HttpHeader> cors_headers(const HttpRequest& request, const ServerConfig& config);
// Whether the request is a browser's question before the real one; its answer is preflight_response().
bool is_preflight(const HttpRequest& request);
HttpResponse preflight_response(const HttpRequest& request, const ServerConfig& config);

}  // namespace millrace
