#include "bench/live.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "bench/validity.h"
#include "report/text.h"

namespace millrace::bench {
namespace {

constexpr auto kLookEvery = std::chrono::milliseconds(200);
constexpr double kRecentSeconds = 5;
constexpr int64_t kEnough = 20;  // values before a warning rests on them

std::string clock_time(double seconds) {
  const auto s = static_cast<int64_t>(std::max(0.0, seconds));
  return s < 3600 ? fmt::format("{:02}:{:02}", s / 60, s % 60)
                  : fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

// As long as the schedule lasts, and as long as the requests take at the pace so far; below 0 while nobody can tell.
double seconds_left(const LiveFigures& f) {
  if (f.ended == 0) return f.last_due_s > f.elapsed_s ? f.last_due_s - f.elapsed_s : -1;
  const double pace = f.elapsed_s / static_cast<double>(f.ended);
  return std::max(f.last_due_s - f.elapsed_s, pace * static_cast<double>(f.planned - f.ended));
}

std::string latency_line(const char* name, const LiveFigures::Spread& s) {
  if (s.count == 0) return fmt::format("{:<6}   -", name);
  return fmt::format("{:<6} p50 {:>8}   p90 {:>8}   p99 {:>8} ms", name, report::format_number(s.p50),
                     report::format_number(s.p90), report::format_number(s.p99));
}

std::string short_latency(const char* name, const LiveFigures::Spread& s) {
  if (s.count == 0) return "";
  return fmt::format("; {} p50 {} p90 {} ms", name, report::format_number(s.p50), report::format_number(s.p90));
}

double share(int64_t part, int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

// What check_validity() would say, as far as it can be told already.
std::vector<std::string> warnings_of(const LiveFigures& f) {
  std::vector<std::string> out;
  const auto add = [&](bool invalid, std::string what) {
    out.push_back(fmt::format("! {}: {}", std::move(what), invalid ? "figures INVALID" : "figures doubtful"));
  };
  const double lag_limit = lag_limit_ms(f.ttft_ms.p50);
  if (f.lag_ms.count >= kEnough && f.lag_ms.p99 > lag_limit)
    add(true, fmt::format("event-loop lag p99 {:.2f} ms, above {:.2f} ms", f.lag_ms.p99, lag_limit));
  if (f.elapsed_s > 1 && f.cpu_share > kDoubtfulCpuShare)
    add(f.cpu_share > kMaxCpuShare, fmt::format("an event loop is busy {:.0f} % of the time", f.cpu_share * 100));
  if (f.open_loop && f.late_ms.count >= kEnough && f.late_ms.p99 > kDoubtfulLateMs)
    add(false, fmt::format("requests go out late, p99 {:.1f} ms", f.late_ms.p99));
  if (f.failed > 0)
    add(share(f.failed, f.ended) > kMaxFailedShare, fmt::format("{} of {} requests failed", f.failed, f.ended));
  if (f.short_outputs > 0)
    add(share(f.short_outputs, f.ended) > kMaxShortShare,
        fmt::format("{} answers ended before the wanted length", f.short_outputs));
  return out;
}

LiveFigures::Spread spread_of(const std::vector<int64_t>& cells) {
  LiveFigures::Spread s;
  for (const int64_t count : cells) s.count += count;
  s.p50 = LiveHistogram::percentile(cells, 50);
  s.p90 = LiveHistogram::percentile(cells, 90);
  s.p99 = LiveHistogram::percentile(cells, 99);
  return s;
}

}  // namespace

void LiveHistogram::add(double value) {
  const double octaves = std::log2(std::max(value, 0x1p-10)) + 10;
  const auto cell = static_cast<size_t>(octaves * kCellsPerOctave);
  std::atomic<int64_t>& count = cells_[std::min(cell, std::size(cells_) - 1)];
  count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

void LiveHistogram::sum_into(std::vector<int64_t>& cells) const {
  cells.resize(std::size(cells_));
  for (size_t i = 0; i < std::size(cells_); ++i) cells[i] += cells_[i].load(std::memory_order_relaxed);
}

double LiveHistogram::percentile(const std::vector<int64_t>& cells, double percent) {
  int64_t total = 0, seen = 0;
  for (const int64_t count : cells) total += count;
  if (total == 0) return 0;
  const auto rank = static_cast<int64_t>(static_cast<double>(total - 1) * percent / 100);
  size_t cell = 0;
  while ((seen += cells[cell]) <= rank) ++cell;
  return std::exp2((static_cast<double>(cell) + 0.5) / kCellsPerOctave - 10);
}

void LiveRun::begin(size_t loops, int64_t planned, double last_due_s) {
  for (size_t i = 0; i < loops; ++i) loops_.push_back(std::make_unique<LoopCounts>());
  planned_ = planned;
  last_due_s_ = last_due_s;
  start_ = std::chrono::steady_clock::now();
  begun_.store(true, std::memory_order_release);
}

LiveFigures LiveRun::read() const {
  LiveFigures f;
  if (!begun_.load(std::memory_order_acquire)) return f;
  f.planned = planned_;
  f.last_due_s = last_due_s_;
  f.issued = issued.get();
  f.open_loop = last_due_s_ > 0;
  f.elapsed_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  std::vector<int64_t> ttft, tpot, itl, late, lag;
  for (const auto& loop : loops_) {
    f.ended += loop->ended.get(), f.failed += loop->failed.get();
    f.short_outputs += loop->short_outputs.get();
    f.tokens += loop->tokens.get();
    f.cpu_share = std::max(f.cpu_share, loop->cpu_s.get() / std::max(f.elapsed_s, 1e-3));
    loop->ttft_ms.sum_into(ttft), loop->tpot_ms.sum_into(tpot), loop->itl_ms.sum_into(itl);
    loop->late_ms.sum_into(late), loop->lag_ms.sum_into(lag);
  }
  f.ttft_ms = spread_of(ttft), f.tpot_ms = spread_of(tpot), f.itl_ms = spread_of(itl);
  f.late_ms = spread_of(late), f.lag_ms = spread_of(lag);
  return f;
}

report::LiveView live_view(const std::string& title, const LiveFigures& f, double tokens_per_s) {
  const double done = share(f.ended, f.planned), left = seconds_left(f);
  const std::string eta = left < 0 ? "" : fmt::format(", about {} left", clock_time(left));
  const std::string counts = fmt::format("{} in flight, {} done, {} failed", std::max<int64_t>(0, f.issued - f.ended),
                                         f.ended - f.failed, f.failed);
  const double elapsed = std::max(f.elapsed_s, 1e-3);
  report::LiveView view;
  view.lines = {
      fmt::format("{}   {}{}", title, clock_time(f.elapsed_s), eta),
      fmt::format("[{}] {:3.0f} % of {} requests: {}", report::progress_bar(done, 24), done * 100, f.planned, counts),
      latency_line("TTFT", f.ttft_ms),
      latency_line("TPOT", f.tpot_ms),
      latency_line("ITL", f.itl_ms),
      fmt::format("output {} tokens/s now, {} over the run; {} requests/s", report::format_number(tokens_per_s),
                  report::format_number(f.tokens / elapsed),
                  report::format_number(static_cast<double>(f.ended - f.failed) / elapsed))};
  view.plain = fmt::format("{}: {:.0f} % of {} requests, {}, {}{}{}{}; {} tokens/s", title, done * 100, f.planned,
                           counts, clock_time(f.elapsed_s), eta, short_latency("TTFT", f.ttft_ms),
                           short_latency("TPOT", f.tpot_ms), report::format_number(tokens_per_s));
  const std::vector<std::string> warnings = warnings_of(f);
  view.warnings = warnings.size();
  for (const std::string& warning : warnings) {
    view.lines.push_back(warning);
    view.plain += "; " + warning;
  }
  return view;
}

LiveDisplay::LiveDisplay(std::string title, const LiveRun& run, report::LivePage::Options options)
    : title_(std::move(title)), run_(run), page_(std::move(options)), thread_([this] { draw_until_stopped(); }) {}

LiveDisplay::~LiveDisplay() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  thread_.join();
  page_.remove();
}

void LiveDisplay::draw_until_stopped() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, kLookEvery, [this] { return stop_; })) page_.update([this] { return view(); });
}

report::LiveView LiveDisplay::view() {
  const LiveFigures figures = run_.read();
  recent_.emplace_back(figures.elapsed_s, figures.tokens);
  while (recent_.size() > 2 && recent_[1].first < figures.elapsed_s - kRecentSeconds) recent_.pop_front();
  const auto [since, tokens] = recent_.size() > 1 ? recent_.front() : std::pair(0.0, 0.0);
  const double seconds = figures.elapsed_s - since;
  return live_view(title_, figures, seconds > 0 ? (figures.tokens - tokens) / seconds : 0);
}

}  // namespace millrace::bench
