#include "net/reply_channel.h"

#include <fmt/format.h>

#include <ctime>

namespace millrace {
namespace {

// RFC 9110's date, made once a second and thread.
std::string_view http_date() {
  thread_local std::time_t made_at = 0;
  thread_local char text[40];
  const std::time_t now = std::time(nullptr);
  if (now != made_at) {
    std::tm utc{};
    gmtime_r(&now, &utc);
    std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &utc);
    made_at = now;
  }
  return text;
}

bool may_have_body(int status) { return status >= 200 && status != 204 && status != 304; }

}  // namespace

void ReplyChannel::append_head(const HttpResponse& head, bool stream) {
  status_ = head.status;
  keep_alive_ = options_.keep_alive && !close_after_.load() && (!stream || options_.chunked);
  auto out = std::back_inserter(pending_);
  fmt::format_to(out, "HTTP/1.1 {} {}\r\nDate: {}\r\nServer: millrace\r\n", head.status, http_reason(head.status),
                 http_date());
  if (!head.content_type.empty()) fmt::format_to(out, "Content-Type: {}\r\n", head.content_type);
  for (const HttpHeader& header : head.headers) fmt::format_to(out, "{}: {}\r\n", header.name, header.value);
  if (stream && options_.chunked) pending_ += "Transfer-Encoding: chunked\r\n";
  if (!stream && may_have_body(head.status)) fmt::format_to(out, "Content-Length: {}\r\n", head.body.size());
  pending_ += keep_alive_ ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
}

void ReplyChannel::append_chunk(std::string_view chunk) {
  if (options_.head_only || chunk.empty()) return;
  if (!options_.chunked) {
    pending_ += chunk;
    return;
  }
  fmt::format_to(std::back_inserter(pending_), "{:x}\r\n", chunk.size());
  pending_.append(chunk).append("\r\n");
}

void ReplyChannel::wake_locked() {
  if (wake_sent_) return;
  wake_sent_ = true;
  options_.wake();
}

void ReplyChannel::send(const HttpResponse& response) {
  std::function<void()> callback;  // destroyed without the lock
  std::lock_guard lock(mutex_);
  if (gone_ || stage_ != Stage::kNothing) return;
  append_head(response, /*stream=*/false);
  if (!options_.head_only && may_have_body(response.status)) pending_ += response.body;
  stage_ = Stage::kEnded;
  callback.swap(on_disconnect_);
  wake_locked();
}

void ReplyChannel::begin(const HttpResponse& head) {
  std::lock_guard lock(mutex_);
  if (gone_ || stage_ != Stage::kNothing) return;
  append_head(head, /*stream=*/true);
  append_chunk(head.body);
  stage_ = Stage::kStreaming;
  wake_locked();
}

bool ReplyChannel::write(std::string_view chunk) {
  std::lock_guard lock(mutex_);
  if (gone_ || broken_ || stage_ != Stage::kStreaming) return false;
  if (pending_.size() > options_.max_buffered_bytes) {
    broken_ = true;
    pending_.clear();
  } else {
    append_chunk(chunk);
  }
  wake_locked();
  return !broken_;
}

void ReplyChannel::end() {
  std::function<void()> callback;
  std::lock_guard lock(mutex_);
  if (gone_ || broken_ || stage_ != Stage::kStreaming) return;
  if (options_.chunked && !options_.head_only) pending_ += "0\r\n\r\n";
  stage_ = Stage::kEnded;
  callback.swap(on_disconnect_);
  wake_locked();
}

void ReplyChannel::abandon() {
  std::function<void()> callback;
  {
    std::lock_guard lock(mutex_);
    if (gone_ || stage_ == Stage::kEnded) return;
    if (stage_ == Stage::kStreaming) {
      broken_ = true;
      callback.swap(on_disconnect_);
      wake_locked();
      return;
    }
  }
  send({.status = 500, .content_type = "text/plain", .body = "the request was dropped without an answer\n"});
}

void ReplyChannel::on_disconnect(std::function<void()> callback) {
  {
    std::lock_guard lock(mutex_);
    if (!gone_) {
      if (stage_ != Stage::kEnded) on_disconnect_ = std::move(callback);
      return;
    }
  }
  callback();
}

bool ReplyChannel::gone() const {
  std::lock_guard lock(mutex_);
  return gone_ || broken_;
}

ReplyChannel::Taken ReplyChannel::take() {
  std::lock_guard lock(mutex_);
  wake_sent_ = false;
  Taken taken{.ended = stage_ == Stage::kEnded, .broken = broken_};
  taken.bytes.swap(pending_);
  return taken;
}

void ReplyChannel::disconnect() {
  std::function<void()> callback;
  {
    std::lock_guard lock(mutex_);
    if (gone_ || stage_ == Stage::kEnded) return;
    gone_ = broken_ = true;
    pending_.clear();
    callback.swap(on_disconnect_);
  }
  if (callback) callback();
}

bool ReplyChannel::keep_alive() const {
  std::lock_guard lock(mutex_);
  return keep_alive_;
}

}  // namespace millrace
