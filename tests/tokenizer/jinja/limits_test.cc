// Templates made to use up memory, time or stack end in kResourceExhausted or kInvalidArgument, soon and without taking
// what they ask for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "base/cpu.h"
#include "tokenizer/jinja/template.h"

namespace millrace {
namespace {

using testing::HasSubstr;

Status failure_of(const std::string& source, const TemplateLimits& limits = {},
                  const OrderedJson& variables = OrderedJson::object()) {
  auto parsed = ChatTemplate::parse(source, limits);
  if (!parsed.ok()) return parsed.status();
  auto text = parsed->render(variables);
  return text.ok() ? Status() : text.status();
}

void expect_exhausted(const std::string& source, const TemplateLimits& limits = {}) {
  const Status status = failure_of(source, limits);
  EXPECT_EQ(status.code(), Code::kResourceExhausted) << source.substr(0, 200) << "\n" << status.to_string();
}

std::string repeated(const std::string& piece, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += piece;
  return text;
}

TEST(JinjaLimits, RecursionWithoutEndIsStopped) {
  expect_exhausted("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}");
  expect_exhausted("{% macro a(x) %}{{ b(x) }}{% endmacro %}{% macro b(x) %}{{ a(x + 1) }}{% endmacro %}{{ a(0) }}");
  expect_exhausted("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}");
  expect_exhausted("{% macro m() %}{{ caller }}{% call m() %}{% endcall %}{% endmacro %}{{ m() }}");
  expect_exhausted("{% macro m(x=m()) %}{% endmacro %}{{ m() }}");
}

TEST(JinjaLimits, EndlessWorkIsStopped) {
  const std::string loops = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
  expect_exhausted(loops);
  expect_exhausted("{% for a in range(1000) %}{{ a }}{% endfor %}", {.max_steps = 500});
  expect_exhausted("{% set s = 'a' * 1000000 %}{% for a in range(100000) %}{% set x = s | upper %}{% endfor %}");
  expect_exhausted("{% set s = 'a' * 1000000 %}{% for a in range(100000) %}{{ 'b' in s }}{% endfor %}");
  expect_exhausted("{% set s = range(100000) | list %}{% for a in range(100000) %}{{ s | sort | length }}{% endfor %}");
}

TEST(JinjaLimits, OutputWithoutEndIsStopped) {
  expect_exhausted("{% for a in range(100) %}{{ 'x' * 100 }}{% endfor %}", {.max_output_bytes = 5000});
  expect_exhausted("{% set x %}{% for a in range(100) %}{{ 'x' * 100 }}{% endfor %}{% endset %}",
                   {.max_output_bytes = 5000});
  expect_exhausted("{% macro m(k) %}{{ 'x' * 1000 }}{% if k %}{{ m(k - 1) }}{% endif %}{% endmacro %}{{ m(9) }}",
                   {.max_output_bytes = 5000});
}

TEST(JinjaLimits, LargeValuesAreRefusedBeforeTheyAreMade) {
  const int64_t before = resident_bytes();
  for (const char* source :
       {"{{ 'a' * 10 ** 9 }}", "{{ 'a' * 9223372036854775807 }}", "{{ [0] * 10 ** 9 }}", "{{ (1, 2) * 2 ** 62 }}",
        "{{ 'a'.ljust(10 ** 12) }}", "{{ 'a'.center(10 ** 12, '*') }}", "{{ 'a'.zfill(10 ** 12) }}",
        "{{ '%1000000000d' % 1 }}", "{{ '{:1000000000}'.format(1) }}", "{{ 'a' | indent(10 ** 12) }}",
        "{{ '\\t'.expandtabs(10 ** 12) }}", "{{ [1] | batch(10 ** 12, 0) | list }}",
        "{{ [1] | slice(10 ** 12) | list }}", "{{ {} | tojson(indent=10 ** 12) }}",
        "{{ '%.*f' | format(2147483647, 1) }}", "{{ 'a' | center(10 ** 12) }}", "{{ '%*d' % (2147483647, 1) }}"}) {
    EXPECT_FALSE(failure_of(source).ok()) << source;
  }
  EXPECT_THAT(failure_of("{{ range(10 ** 12) }}").message(), HasSubstr("at most 100000"));
  EXPECT_LT(resident_bytes() - before, int64_t{64} << 20);
}

TEST(JinjaLimits, ValuesThatGrowStepByStepAreStopped) {
  const TemplateLimits limits = {.max_memory_bytes = size_t{4} << 20};
  expect_exhausted("{% set ns = namespace(s='x') %}{% for a in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
                   limits);
  expect_exhausted("{% set ns = namespace(s=[1]) %}{% for a in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
                   limits);
  expect_exhausted(
      "{% set ns = namespace(s='x') %}{% for a in range(60) %}{% set ns.s = ns.s | replace('x', 'xx') %}{% endfor %}",
      limits);
  expect_exhausted(
      "{% set ns = namespace(s=[1]) %}{% for a in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
      limits);
  expect_exhausted(
      "{% set ns = namespace(s=[1]) %}{% for a in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}"
      "{{ ns.s | tojson }}",
      limits);
  expect_exhausted("{% for a in range(100000) %}{% with %}{% macro m() %}{% endmacro %}{% endwith %}{% endfor %}",
                   limits);
}

TEST(JinjaLimits, ComparingValuesThatShareTheirPartsIsCounted) {
  expect_exhausted(
      "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}"
      "{% set ns.b = [ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}");
  expect_exhausted(
      "{% set ns = namespace(a=(1,)) %}{% for i in range(60) %}{% set ns.a = (ns.a, ns.a) %}{% endfor %}"
      "{{ {ns.a: 1} }}");
}

TEST(JinjaLimits, MemoryIsGivenBackWhileRendering) {
  const TemplateLimits limits = {.max_memory_bytes = size_t{1} << 20};
  const Status status = failure_of("{% for a in range(1000) %}{% set x = 'y' * 100000 %}{% endfor %}", limits);
  EXPECT_TRUE(status.ok()) << status.to_string();
}

TEST(JinjaLimits, DeepValuesAreRefused) {
  EXPECT_THAT(failure_of("{% set ns = namespace(s=[]) %}{% for a in range(1000) %}{% set ns.s = [ns.s] %}{% endfor %}")
                  .message(),
              HasSubstr("nested more than"));
  OrderedJson deep = 1;
  for (int i = 0; i < 5000; ++i) deep = OrderedJson::array({std::move(deep)});
  EXPECT_FALSE(failure_of("{{ x }}", {}, OrderedJson{{"x", std::move(deep)}}).ok());
}

TEST(JinjaLimits, ValuesThatHoldThemselvesAreFreed) {
  EXPECT_TRUE(failure_of("{% set ns = namespace() %}{% set ns.me = [ns] %}{{ ns.me | length }}"
                         "{% for i in [1, 2] %}{% set ns.l = loop %}{{ loop.changed([ns, loop]) }}{% endfor %}"
                         "{% macro m() %}{% endmacro %}{% set ns.m = m %}{% set c = cycler(ns, m) %}{% set ns.c = c %}")
                  .ok());
}

TEST(JinjaLimits, DeepSourceIsRefused) {
  for (const std::string& source :
       {"{{ " + repeated("(", 5000) + "1" + repeated(")", 5000) + " }}",
        "{{ " + repeated("[", 5000) + repeated("]", 5000) + " }}",
        "{{ " + repeated("{1:", 5000) + "1" + repeated("}", 5000) + " }}", "{{ " + repeated("-", 5000) + "1 }}",
        "{{ " + repeated("not ", 5000) + "1 }}", repeated("{% if 1 %}", 5000) + repeated("{% endif %}", 5000),
        repeated("{% for a in b %}", 5000) + repeated("{% endfor %}", 5000), "{{ 1" + repeated(" + 1", 50000) + " }}",
        "{{ a" + repeated(".b", 50000) + " }}", "{{ a" + repeated("[0", 5000) + repeated("]", 5000) + " }}",
        "{{ a" + repeated("()", 50000) + " }}", "{{ 'a'" + repeated("|upper", 50000) + " }}",
        "{{ f" + repeated("(f", 5000) + repeated(")", 5000) + " }}", "{{ 1" + repeated(" if 1 else 1", 50000) + " }}",
        "{{ 1" + repeated(" is defined", 2) + repeated(" and 1", 50000) + " }}",
        "{% set " + repeated("(", 5000) + "a }}", "{{ " + repeated("1 if ", 5000) + "1 }}",
        "{{ 1" + repeated(" ** 1", 50000) + " }}"}) {
    const Status status = failure_of(source);
    EXPECT_FALSE(status.ok()) << source.substr(0, 60);
  }
}

TEST(JinjaLimits, WhatIsNestedAsDeepAsAllowedRenders) {
  EXPECT_TRUE(failure_of("{{ " + repeated("(", 100) + "1" + repeated(")", 100) + " }}").ok());
  EXPECT_TRUE(failure_of("{{ 1" + repeated(" + 1", 250) + " }}").ok());
  EXPECT_TRUE(failure_of(repeated("{% if 1 %}", 200) + repeated("{% endif %}", 200)).ok());
  EXPECT_TRUE(failure_of("{% macro m(k) %}{% if k > 0 %}{{ m(k - 1) }}{% endif %}{% endmacro %}{{ m(80) }}").ok());
  EXPECT_TRUE(failure_of("{{ 1" + repeated(" ~ 1", 5000) + " }}").ok());
}

TEST(JinjaLimits, ALongSourceIsRefused) {
  expect_exhausted(std::string((size_t{1} << 20) + 1, 'x'));
  EXPECT_TRUE(failure_of(std::string(size_t{1} << 20, 'x')).ok());
}

TEST(JinjaLimits, HostileTemplatesEndSoon) {
  const auto start = std::chrono::steady_clock::now();
  for (const char* source :
       {"{% for a in range(100000) %}{% for b in range(100000) %}{{ a ~ b }}{% endfor %}{% endfor %}",
        "{% set s = 'ab' * 400000 %}{% for i in range(100000) %}{{ s.find('ba' * 1000 ~ 'c') }}{% endfor %}",
        "{% set s = 'a' * 400000 %}{% for i in range(100000) %}{% set t = s.split('a') %}{% endfor %}",
        "{% set s = 'a ' * 400000 %}{% for i in range(100000) %}{% set t = s | wordwrap(1) %}{% endfor %}",
        "{% set s = 'é' * 400000 %}{% for i in range(100000) %}{{ s[300000] }}{% endfor %}",
        "{% set d = dict(range(50000) | batch(2)) %}{% for i in range(100000) %}{{ d == d.copy() }}{{ d | dictsort "
        "}}{% endfor %}",
        "{% set ns = namespace() %}{% for i in range(100000) %}{% set ns.x = ns.x ~ 'yyyyyyyyyyyyyyyy' %}{% endfor %}",
        "{% set s = 'a' * 100000 %}{% for i in range(100000) %}{{ '%s' % s }}{% endfor %}",
        "{% set s = '<a>' * 100000 %}{% for i in range(100000) %}{{ s | striptags }}{{ s | e | length }}{% endfor "
        "%}"}) {
    EXPECT_FALSE(failure_of(source, {.max_steps = 1'000'000}).ok()) << source;
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

}  // namespace
}  // namespace millrace
