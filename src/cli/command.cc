#include "cli/command.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "base/log.h"
#include "base/text.h"

namespace millrace::cli {
namespace {

// "--max_model_len=4" -> "--max-model-len=4" and "-tp" -> "--tensor-parallel-size"; values are left alone.
std::string with_dashes(std::string argument) {
  if (argument == "-tp") return "--tensor-parallel-size";
  if (argument == "-pp") return "--pipeline-parallel-size";
  if (!argument.starts_with("--")) return argument;
  const auto end = argument.begin() + static_cast<long>(std::min(argument.find('='), argument.size()));
  std::replace(argument.begin(), end, '_', '-');
  return argument;
}

std::vector<std::string> flag_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

int refuse_extras(const CLI::App& app) {
  for (const std::string& extra : app.remaining()) {
    const std::string name = extra.substr(0, extra.find('='));
    const char* what = name.starts_with("-") ? "flag" : "argument";
    fmt::print(stderr, "{}: unknown {} '{}'{}\nSee '{} --help'.\n", app.get_name(), what, name,
               did_you_mean(name, flag_names(app)), app.get_name());
    return 2;
  }
  return -1;
}

}  // namespace

App::App(const std::string& description, const std::string& name) : CLI::App(description, "millrace " + name) {
  option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)->always_capture_default();
}
App::~App() = default;

int parse(CLI::App& app, const Arguments& arguments) {
  app.allow_extras();
  std::vector<std::string> reversed;  // CLI11 takes the last argument first
  for (auto it = arguments.rbegin(); it != arguments.rend(); ++it) reversed.push_back(with_dashes(*it));
  try {
    app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    return 0;
  } catch (const CLI::ParseError& e) {
    fmt::print(stderr, "{}: {}\nSee '{} --help'.\n", app.get_name(), e.what(), app.get_name());
    return 2;
  }
  return refuse_extras(app);
}

void add_switch(CLI::App& app, const std::string& name, bool& value, const std::string& help) {
  app.add_flag(fmt::format("--{},!--no-{}", name, name), value, help);
}

void add_no_effect(CLI::App& app, const std::string& name, bool takes_value, const std::string& why) {
  const auto say = [name, why] { warn_once(name, fmt::format("--{} has no effect: {}", name, why)); };
  const std::string flag = "--" + name, group = "Accepted without effect";
  if (takes_value) {
    app.add_option_function<std::vector<std::string>>(
           flag, [say](const std::vector<std::string>&) { say(); }, why)
        ->expected(1)
        ->group(group);
  } else {
    app.add_flag_function(
           flag, [say](std::int64_t) { say(); }, why)
        ->group(group);
  }
}

int fail(const Status& status) {
  fmt::print(stderr, "millrace: {}\n", status.message());
  return 1;
}

}  // namespace millrace::cli
