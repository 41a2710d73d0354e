// What the commands of `millrace` share: how their arguments are parsed and how they end. Exit codes: 0 done, 1 failed,
// 2 the command line is wrong.
#pragma once
#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"

namespace millrace::cli {

// argv without the program and command names.
using Arguments = std::vector<std::string>;

// An App whose repeated flags count by their last value.
class App : public CLI::App {
 public:
  App(const std::string& description, const std::string& name);
  ~App() override;
};

// Parses `arguments` into `app` as vLLM's parser does: `--max_model_len`, `--max-model-len` and `--max-model-len=5` are
// the same flag. Help is printed on --help. An unknown flag is refused with the nearest known name.
// Returns -1 to go on, or the exit code with which the command must end.
int parse(CLI::App& app, const Arguments& arguments);

// A flag that may be given as --name, --name=True or --name=False, and as --no-name.
void add_switch(CLI::App& app, const std::string& name, bool& value, const std::string& help);
// A flag of vLLM that changes nothing here: accepted with its value, and said once when given.
void add_no_effect(CLI::App& app, const std::string& name, bool takes_value, const std::string& why);

// Prints the error and returns the exit code 1.
int fail(const Status& status);

int serve(const Arguments& arguments);
int generate(const Arguments& arguments);
int chat(const Arguments& arguments);
int tokenize(const Arguments& arguments);
int init(const Arguments& arguments);
int devices(const Arguments& arguments);
int plan(const Arguments& arguments);
int bench(const Arguments& arguments);

}  // namespace millrace::cli
