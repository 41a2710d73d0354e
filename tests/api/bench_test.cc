// `millrace bench` as a user runs it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/cpu.h"
#include "base/file.h"
#include "tests/api/server_process.h"

namespace millrace {
namespace {

using testing::HasSubstr;

TEST(BenchMachine, JsonHasEveryCeiling) {
  const CommandResult result = run_millrace({"bench", "machine", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  const Result<Json> json = parse_json(result.output);
  ASSERT_TRUE(json.ok()) << result.output;
  EXPECT_EQ(json->at("isa"), isa_name(best_isa()));
  EXPECT_GE(json->at("threads"), 1);
  EXPECT_GT(json->at("read_bytes_per_s"), 1e8);
  EXPECT_GT(json->at("read_bytes_per_s_one_thread"), 1e8);
  EXPECT_GT(json->at("float32_flops"), 1e8);
  EXPECT_GT(json->at("parallel_region_us"), 0);
  EXPECT_EQ(json->at("bfloat16_vector_flops") > 0, cpu_has(Isa::kAvx512Bf16));
  EXPECT_EQ(json->at("int8_vector_ops") > 0, cpu_has(Isa::kAvx512));
  EXPECT_EQ(json->at("bfloat16_tile_flops") > 0, cpu_has(Isa::kAmx));
  EXPECT_EQ(json->at("int8_tile_ops") > 0, cpu_has(Isa::kAmx));
}

TEST(BenchMachine, TheTableNamesWhatIsMeasured) {
  const CommandResult result = run_millrace({"bench", "machine"});
  EXPECT_EQ(result.exit_code, 0);
  for (const char* line : {"\nmemory reads ", "\nfloat32 ", "\nbfloat16 vectors ", "\nint8 vectors ",
                           "\nbfloat16 tiles ", "\nint8 tiles ", "\nparallel region "})
    EXPECT_THAT(result.output, HasSubstr(line));
}

TEST(Bench, UnknownSubjectsAndFlagsAreRefused) {
  const CommandResult subject = run_millrace({"bench", "machines"});
  EXPECT_EQ(subject.exit_code, 2);
  EXPECT_THAT(subject.output, HasSubstr("machine"));
  EXPECT_EQ(run_millrace({"bench"}).exit_code, 2);
  EXPECT_EQ(run_millrace({"bench", "--help"}).exit_code, 0);
  const CommandResult flag = run_millrace({"bench", "machine", "--jsn"});
  EXPECT_EQ(flag.exit_code, 2);
  EXPECT_THAT(flag.output, HasSubstr("--json"));
}

}  // namespace
}  // namespace millrace
