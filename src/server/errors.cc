#include "server/errors.h"

#include "server/json_writer.h"

namespace millrace {
namespace {

void append_error_fields(JsonWriter& json, int status, std::string_view message) {
  json.field("message", message).field("type", error_type(status)).null_field("param").field("code", status);
}

}  // namespace

int http_status(Code code) {
  switch (code) {
    case Code::kOk:
      return 200;
    case Code::kInvalidArgument:
    case Code::kAlreadyExists:
    case Code::kFailedPrecondition:
      return 400;
    case Code::kNotFound:
      return 404;
    case Code::kResourceExhausted:
    case Code::kUnavailable:
      return 503;
    case Code::kUnimplemented:
      return 501;
    case Code::kCancelled:
      return 499;
    case Code::kDataLoss:
    case Code::kInternal:
      return 500;
  }
  return 500;
}

std::string_view error_type(int http_status) {
  switch (http_status) {
    case 401:
      return "AuthenticationError";
    case 404:
      return "NotFoundError";
    case 405:
      return "MethodNotAllowedError";
    case 408:
      return "RequestTimeoutError";
    case 413:
      return "RequestTooLargeError";
    case 429:
      return "RateLimitError";
    case 499:
      return "ClientClosedRequestError";
    case 501:
      return "NotImplementedError";
    case 503:
      return "ServiceUnavailableError";
    default:
      return http_status < 500 ? "BadRequestError" : "InternalServerError";
  }
}

std::string error_body(int http_status, std::string_view message) {
  std::string out;
  JsonWriter json(out);
  json.begin_object().field("object", "error");
  append_error_fields(json, http_status, message);
  json.key("error").begin_object();
  append_error_fields(json, http_status, message);
  json.end_object().end_object();
  return out;
}

std::string error_event(const Status& status) {
  std::string out;
  JsonWriter json(out);
  json.begin_object().key("error").begin_object();
  append_error_fields(json, http_status(status.code()), status.message());
  json.end_object().end_object();
  return out;
}

HttpResponse error_response(int http_status, std::string_view message) {
  HttpResponse response{.status = http_status, .body = error_body(http_status, message)};
  if (http_status == 503) response.headers.push_back({"Retry-After", "1"});
  return response;
}

HttpResponse error_response(const Status& status) {
  return error_response(http_status(status.code()), status.message());
}

}  // namespace millrace
