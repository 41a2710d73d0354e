// Every template of the lists beside this file, and the real ones in ../shared/data/chat_templates, must give what
// Python's jinja2 gives for it, or fail where that fails. MILLRACE_CHAT_TEMPLATES may name one more folder of
// templates.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "tokenizer/jinja/template.h"

namespace millrace {
namespace {

const std::string kFolder = MILLRACE_SOURCE_DIR "/tests/tokenizer/jinja/";
constexpr int64_t kFixedTime = 1700000000;  // as in render.py

struct Case {
  std::string name;
  std::string source;
  OrderedJson variables;
};

OrderedJson read_json(const std::string& path) {
  auto json = read_ordered_json_file(path);
  EXPECT_TRUE(json.ok()) << json.status().to_string();
  return json.ok() ? *json : OrderedJson::object();
}

std::string read_text(const std::string& path) {
  auto text = read_file(path);
  EXPECT_TRUE(text.ok()) << text.status().to_string();
  return text.ok() ? *text : "";
}

// The answers of the Python program, one for each case; empty if it cannot run.
std::vector<OrderedJson> python_answers(const std::vector<Case>& cases) {
  const TemporaryDirectory folder;
  std::string lines;
  for (const Case& c : cases) lines += OrderedJson{{"template", c.source}, {"variables", c.variables}}.dump() + "\n";
  EXPECT_TRUE(write_file(folder.file("in"), lines).ok());
  const std::string command =
      fmt::format("/usr/bin/python3 '{}render.py' < '{}' > '{}' 2>&1", kFolder, folder.file("in"), folder.file("out"));
  if (std::system(command.c_str()) != 0) return {};
  std::vector<OrderedJson> answers;
  for (const std::string& line : split(read_text(folder.file("out")), '\n'))
    if (!line.empty()) answers.push_back(OrderedJson::parse(line));
  return answers;
}

bool python_has_jinja2() { return std::system("/usr/bin/python3 -c 'import jinja2' > /dev/null 2>&1") == 0; }

Result<std::string> render(const Case& c) {
  auto parsed = ChatTemplate::parse(c.source);
  if (!parsed.ok()) return parsed.status();
  return parsed->render(c.variables, {.fixed_time = kFixedTime});
}

void expect_as_python(const std::vector<Case>& cases) {
  const std::vector<OrderedJson> answers = python_answers(cases);
  ASSERT_EQ(answers.size(), cases.size()) << "render.py did not answer every case";
  for (size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(testing::Message() << cases[i].name << "\n" << cases[i].source.substr(0, 2000));
    const auto ours = render(cases[i]);
    if (answers[i].contains("error")) {
      if (answers[i].contains("raised")) {
        EXPECT_EQ(ours.status().message(), answers[i]["error"].get<std::string>());
      }
      EXPECT_FALSE(ours.ok()) << "Python fails: " << answers[i]["error"] << "\nwe print: " << (ours.ok() ? *ours : "");
    } else {
      EXPECT_TRUE(ours.ok()) << ours.status().to_string() << "\nPython prints: " << answers[i]["text"];
      EXPECT_EQ(ours.ok() ? *ours : "(failed)", answers[i]["text"].get<std::string>());
    }
  }
}

std::vector<Case> expression_cases(const OrderedJson& variables) {
  std::vector<Case> cases;
  int number = 0;
  for (const std::string& line : split(read_text(kFolder + "expressions.txt"), '\n')) {
    ++number;
    if (line.empty() || line.starts_with("# ")) continue;
    cases.push_back({fmt::format("expressions.txt:{}", number), line, variables});
  }
  return cases;
}

std::vector<Case> statement_cases(const OrderedJson& variables) {
  std::vector<Case> cases;
  std::string text = read_text(kFolder + "statements.txt");
  text.erase(0, text.find('\n') + 1);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find("\n====\n", begin), text.size());
    cases.push_back(
        {fmt::format("statements.txt, case {}", cases.size() + 1), text.substr(begin, end - begin), variables});
    begin = end + 6;
  }
  return cases;
}

std::vector<Case> chat_cases(const std::string& folder) {
  const OrderedJson conversations = read_json(kFolder + "conversations.json");
  std::vector<Case> cases;
  const auto names = list_directory(folder);
  for (const std::string& name : names.ok() ? *names : std::vector<std::string>{}) {
    const std::string source = read_text(join_path(folder, name));
    for (const auto& [conversation, variables] : conversations.items())
      cases.push_back({name + " with " + conversation, source, variables});
  }
  return cases;
}

TEST(JinjaAgainstPython, EveryExpressionGivesTheSame) {
  if (!python_has_jinja2()) GTEST_SKIP() << "/usr/bin/python3 with jinja2 is not installed";
  const auto cases = expression_cases(read_json(kFolder + "snippet_variables.json"));
  EXPECT_GT(cases.size(), 200u);
  expect_as_python(cases);
}

TEST(JinjaAgainstPython, EveryStatementGivesTheSame) {
  if (!python_has_jinja2()) GTEST_SKIP() << "/usr/bin/python3 with jinja2 is not installed";
  const auto cases = statement_cases(read_json(kFolder + "snippet_variables.json"));
  EXPECT_GT(cases.size(), 100u);
  expect_as_python(cases);
}

TEST(JinjaAgainstPython, RealChatTemplatesGiveTheSame) {
  if (!python_has_jinja2()) GTEST_SKIP() << "/usr/bin/python3 with jinja2 is not installed";
  const std::string folder = MILLRACE_SOURCE_DIR "/../shared/data/chat_templates";
  const char* more = std::getenv("MILLRACE_CHAT_TEMPLATES");
  if (!is_directory(folder) && !more) GTEST_SKIP() << "../shared/data/chat_templates is absent";
  std::vector<Case> cases = chat_cases(folder);
  if (more)
    for (Case& c : chat_cases(more)) cases.push_back(std::move(c));
  expect_as_python(cases);
}

}  // namespace
}  // namespace millrace
