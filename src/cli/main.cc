// `millrace <command>`: finds the command and hands it the arguments. An exception that reaches this point is printed
// as one line.
#include <fmt/format.h>

#include <exception>
#include <string_view>
#include <vector>

#include "base/text.h"
#include "base/version.h"
#include "cli/command.h"

namespace millrace::cli {
namespace {

struct Command {
  const char* name;
  const char* summary;
  int (*run)(const Arguments&);
};
constexpr Command kCommands[] = {
    {"serve", "serve a model over HTTP (OpenAI-compatible)", serve},
    {"generate", "generate from one prompt or a jsonl file, without a server", generate},
    {"chat", "talk to a model in the terminal", chat},
    {"tokenize", "show the token ids of a text, or the text of token ids", tokenize},
    {"init", "make a new checkpoint with random weights", init},
    {"plan", "say what memory models need, how many devices and how long a sequence", plan},
    {"bench", "measure a server under load, or this machine", bench},
    {"devices", "show cores, instruction sets, memory and GPUs", devices},
};

void print_usage(std::FILE* out) {
  fmt::print(out, "Usage: millrace <command> [arguments]\n\nCommands:\n");
  for (const Command& command : kCommands) fmt::print(out, "  {:<10} {}\n", command.name, command.summary);
  fmt::print(out, "\n  millrace <command> --help   what a command takes, with examples\n  millrace --version\n");
}

int run(std::string_view name, const Arguments& arguments) {
  if (name == "--version" || name == "-V" || name == "version") return fmt::print("millrace {}\n", kVersion), 0;
  if (name == "--help" || name == "-h" || name == "help") return print_usage(stdout), 0;
  std::vector<std::string> names;
  for (const Command& command : kCommands) {
    if (name == command.name) return command.run(arguments);
    names.emplace_back(command.name);
  }
  fmt::print(stderr, "millrace: unknown command '{}'{}\n\n", name, did_you_mean(name, names));
  return print_usage(stderr), 2;
}

}  // namespace
}  // namespace millrace::cli

int main(int argc, char** argv) {
  try {
    if (argc < 2) return millrace::cli::print_usage(stderr), 2;
    return millrace::cli::run(argv[1], {argv + 2, argv + argc});
  } catch (const std::exception& e) {
    fmt::print(stderr, "millrace: {}\n", e.what());
    return 1;
  }
}
