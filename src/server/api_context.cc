#include "server/api_context.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <random>

#include "base/text.h"
#include "server/errors.h"

namespace millrace {

void ApiCall::send(HttpResponse response) const {
  response.headers.insert(response.headers.end(), headers.begin(), headers.end());
  reply.send(response);
}

void ApiCall::fail(const Status& status) const { send(error_response(status)); }

Status check_model(const ServerConfig& config, const std::string& model) {
  const auto& names = config.served_model_name;
  if (model.empty() || std::find(names.begin(), names.end(), model) != names.end()) return {};
  return not_found("The model `{}` does not exist. It must be one of: {}", model.substr(0, 200),
                   fmt::format("`{}`", fmt::join(names, "`, `")));
}

Result<Json> parse_body(const ApiCall& call) {
  if (call.request.body.empty()) return invalid_argument("the request has no body; it must be a JSON object");
  return parse_json(call.request.body);
}

std::string random_hex32() {
  thread_local std::mt19937_64 random{(static_cast<uint64_t>(std::random_device{}()) << 32) ^ std::random_device{}()};
  return fmt::format("{:016x}{:016x}", random(), random());
}

}  // namespace millrace
