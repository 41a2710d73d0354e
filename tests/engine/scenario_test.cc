// Replays tests/engine/scenarios/*.txt: what is said to a scheduler, and what it answers after "----".
//
//   engine blocks=8 block_tokens=16 max_num_batched_tokens=32 ...
//   add NAME prompt=PARTS max_tokens=N [n=] [priority=] [salt=] [all_rows]
//       PARTS: comma-separated; `48` or `x:32` are tokens of the stream called NAME or x; `@a` all tokens of sequence a
//   step [times]      answers one line for each step
//   stop NAME         the sequence's next token is its last
//   abort NAME
//   blocks            answers the state of all blocks
//
// Sequences of one request with n > 1 are called NAME, NAME.1, NAME.2, ...
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <sstream>

#include "base/text.h"
#include "tests/engine/simulation.h"

namespace millrace {
namespace {

using Options = std::map<std::string, std::string>;

std::set<SequenceId> stopping;  // sequences that end with their next token

class Scenario {
 public:
  // The answer's lines, each ending in a newline.
  std::string say(const std::string& line);

 private:
  std::string engine(const Options& options);
  std::string add(const std::string& name, const Options& options);
  std::string step();
  std::string describe_blocks() const;
  std::vector<int32_t> prompt(const std::string& name, const std::string& parts) const;
  std::vector<int32_t> tokens_of(const std::string& name) const;
  void watch();

  std::unique_ptr<Simulation> simulation_;
  std::map<SequenceId, std::string> names_;
  std::map<std::string, SequenceId> ids_;
  std::map<SequenceId, std::vector<int32_t>> last_tokens_;
  uint64_t groups_ = 0;
};

Options parse_options(std::istringstream& words) {
  Options options;
  for (std::string word; words >> word;) {
    const auto equals = word.find('=');
    options[word.substr(0, equals)] = equals == std::string::npos ? "1" : word.substr(equals + 1);
  }
  return options;
}

int64_t take(const Options& options, const std::string& name, int64_t fallback) {
  const auto it = options.find(name);
  return it == options.end() ? fallback : std::stoll(it->second);
}

std::string Scenario::say(const std::string& line) {
  std::istringstream words(line);
  std::string verb, name;
  words >> verb;
  if (verb == "engine") return engine(parse_options(words));
  if (simulation_ == nullptr) return "no engine yet\n";
  if (verb == "blocks") return describe_blocks() + "\n";
  if (verb == "step") {
    int times = 1;
    words >> times;
    std::string answer;
    for (int i = 0; i < std::max(times, 1); ++i) answer += step();
    return answer;
  }
  words >> name;
  if (verb == "add") return add(name, parse_options(words));
  if (!ids_.contains(name)) return "nobody is called " + name + "\n";
  if (verb == "stop") {
    stopping.insert(ids_.at(name));
    return "";
  }
  if (verb == "abort") {
    simulation_->abort(ids_.at(name));
    return describe_blocks() + "\n";
  }
  return "unknown word " + verb + "\n";
}

std::string Scenario::engine(const Options& options) {
  SchedulerConfig config;
  config.max_num_seqs = static_cast<int32_t>(take(options, "max_num_seqs", 8));
  config.max_num_batched_tokens = take(options, "max_num_batched_tokens", 64);
  config.long_prefill_token_threshold = take(options, "long_prefill_token_threshold", 0);
  config.chunked_prefill = take(options, "enable_chunked_prefill", 1) != 0;
  config.prefix_caching = take(options, "enable_prefix_caching", 1) != 0;
  config.policy = options.contains("priority") ? SchedulingPolicy::kPriority : SchedulingPolicy::kFcfs;
  config.num_steps = static_cast<int32_t>(take(options, "num_scheduler_steps", 1));
  config.rotation.limit = take(options, "rope_limit", 0);
  config.rotation.beyond =
      options.contains("rope_doublings") ? RotationLengths::Beyond::kDoublings : RotationLengths::Beyond::kEveryLength;
  simulation_ = std::make_unique<Simulation>(
      config, BlockManager::Config{.total_blocks = static_cast<int32_t>(take(options, "blocks", 8)),
                                   .block_tokens = static_cast<int32_t>(take(options, "block_tokens", 16))});
  stopping.clear();
  simulation_->ends = [](const Sequence& sequence, int64_t) { return stopping.contains(sequence.id); };
  return "";
}

std::vector<int32_t> Scenario::tokens_of(const std::string& name) const { return last_tokens_.at(ids_.at(name)); }

std::vector<int32_t> Scenario::prompt(const std::string& name, const std::string& parts) const {
  std::vector<int32_t> tokens;
  for (const std::string& part : split(parts, ',')) {
    if (part[0] == '@') {
      const auto copied = tokens_of(part.substr(1));
      tokens.insert(tokens.end(), copied.begin(), copied.end());
      continue;
    }
    const auto colon = part.find(':');
    const std::string stream = colon == std::string::npos ? name : part.substr(0, colon);
    const int64_t count = std::stoll(colon == std::string::npos ? part : part.substr(colon + 1));
    for (int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(stream[0] * 1000 + i));
  }
  return tokens;
}

std::string Scenario::add(const std::string& name, const Options& options) {
  SequenceGroup group;
  group.id = ++groups_;
  group.count = static_cast<int32_t>(take(options, "n", 1));
  group.prompt = prompt(name, options.at("prompt"));
  group.max_length = static_cast<int64_t>(group.prompt.size()) + take(options, "max_tokens", 100);
  group.priority = static_cast<int>(take(options, "priority", 0));
  group.compute_prompt = options.contains("all_rows");
  if (options.contains("salt")) group.scope.salt = options.at("salt");
  for (int32_t i = 0; i < group.count; ++i) {
    const std::string full = i == 0 ? name : fmt::format("{}.{}", name, i);
    ids_[full] = sequence_id(group.id, i);
    names_[sequence_id(group.id, i)] = full;
  }
  simulation_->add(std::move(group));
  return "";
}

void Scenario::watch() {
  for (const auto& [id, name] : names_) {
    if (const Sequence* sequence = simulation_->scheduler().find(id)) last_tokens_[id] = sequence->tokens;
  }
  for (const auto& [id, tokens] : simulation_->finished()) last_tokens_[id] = tokens;
}

std::string Scenario::step() {
  watch();
  const std::string wrong = simulation_->step();
  if (!wrong.empty()) return "WRONG: " + wrong + "\n";
  const StepPlan& plan = simulation_->last_plan();
  watch();
  std::vector<std::string> parts;
  for (const SequenceId id : plan.refused) parts.push_back("refuse " + names_[id]);
  for (const SequenceId id : simulation_->last_preempted()) parts.push_back("preempt " + names_[id]);
  for (const Simulation::Done& chunk : simulation_->last_done()) {
    std::string text = fmt::format("{} [{},{})", names_[chunk.id], chunk.begin, chunk.end);
    if (chunk.admitted) text += fmt::format(" hit={}", chunk.begin);
    if (chunk.sampled > 0) text += fmt::format(" +{}", chunk.sampled);
    if (chunk.finished) text += " end";
    parts.push_back(text);
  }
  if (parts.empty()) parts.push_back("nothing");
  std::string line;
  for (const std::string& part : parts) line += (line.empty() ? "" : " | ") + part;
  return line + " | " + describe_blocks() + "\n";
}

std::string Scenario::describe_blocks() const {
  std::string text = "blocks";
  for (const Sequence* sequence : simulation_->scheduler().running()) {
    text += fmt::format(" {}={}", names_.at(sequence->id), sequence->table.size());
  }
  const BlockManager& blocks = simulation_->blocks();
  return text + fmt::format(" free={} reusable={}", blocks.free(), blocks.reusable());
}

struct Script {
  std::string as_written, as_answered;
};

// Plays a file; `as_answered` is the file with the answers that came.
Script play(const std::filesystem::path& file) {
  std::ifstream in(file);
  Scenario scenario;
  Script script;
  for (std::string line; std::getline(in, line);) {
    script.as_written += line + "\n";
    if (line.starts_with("----")) continue;
    script.as_answered += line + "\n";
    if (line.empty() || line[0] == '#') continue;
    for (const std::string& answer : split(scenario.say(line), '\n')) {
      if (!answer.empty()) script.as_answered += "---- " + answer + "\n";
    }
  }
  return script;
}

// With MILLRACE_WRITE_SCENARIOS set the answers are written into the files, to be read before they are believed.
TEST(Scenarios, AnswerAsWritten) {
  const std::filesystem::path folder = std::filesystem::path(MILLRACE_SOURCE_DIR) / "tests/engine/scenarios";
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) files.push_back(entry.path());
  ASSERT_GE(files.size(), 15u);
  for (const auto& file : files) {
    SCOPED_TRACE(file.filename().string());
    const Script script = play(file);
    EXPECT_EQ(script.as_answered, script.as_written);
    if (std::getenv("MILLRACE_WRITE_SCENARIOS") != nullptr) std::ofstream(file) << script.as_answered;
  }
}

}  // namespace
}  // namespace millrace
