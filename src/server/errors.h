// Errors as clients see them: one table from Status codes to HTTP, and the body that both generations of vLLM clients
// understand (the flat fields of 0.6 and OpenAI's nested `error` object in one).
#pragma once
#include <string>
#include <string_view>

#include "base/result.h"
#include "net/http.h"

namespace millrace {

int http_status(Code code);
std::string_view error_type(int http_status);  // "BadRequestError"
// {"object":"error","message":m,"type":t,"param":null,"code":s,"error":{"message":m,"type":t,"param":null,"code":s}}
std::string error_body(int http_status, std::string_view message);
// {"error":{...}}, the form inside a stream
std::string error_event(const Status& status);
// 503 carries Retry-After.
HttpResponse error_response(int http_status, std::string_view message);
HttpResponse error_response(const Status& status);

}  // namespace millrace
