#include <gtest/gtest.h>

#include "base/byte_size.h"
#include "base/cpu.h"
#include "base/dtype.h"
#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "base/result.h"
#include "base/text.h"
#include "base/utf8.h"

namespace millrace {
namespace {

Result<int> half(int x) {
  if (x % 2) return invalid_argument("{} is odd", x);
  return x / 2;
}
Status quarter(int x, int& out) {
  MR_ASSIGN_OR_RETURN(const int h, half(x));
  MR_ASSIGN_OR_RETURN(out, half(h));
  return {};
}

TEST(Result, ErrorsLeaveTheFunctionAndKeepTheirMessage) {
  int out = 0;
  EXPECT_TRUE(quarter(12, out).ok());
  EXPECT_EQ(out, 3);
  const Status status = quarter(6, out).at("input");
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_EQ(status.message(), "input: 3 is odd");
}

TEST(Json, DepthIsLimitedBeforeParsing) {
  const std::string deep(100000, '[');
  const auto result = parse_json(deep);
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.status().message().find("levels deep"), std::string::npos);
  EXPECT_TRUE(parse_json(R"({"a":"[[[[\"]]"})", {.max_depth = 1}).ok());
}

TEST(Json, ErrorsNameThePlace) {
  const auto result = parse_json("{\"a\": 1,\n \"b\": }");
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.status().message().find("line 2"), std::string::npos) << result.status().message();
}

TEST(Utf8, ReplacesLikePython) {
  // Expected values from Python 3: bytes.decode("utf-8", errors="replace").
  EXPECT_EQ(utf8_replace_invalid("a\xff"
                                 "b"),
            "a\uFFFDb");
  EXPECT_EQ(utf8_replace_invalid("\xe4\xbd"), "\uFFFD");
  EXPECT_EQ(utf8_replace_invalid("\xf0\x9f\x98x"), "\uFFFDx");
  EXPECT_EQ(utf8_replace_invalid("\xc0\x80"), "\uFFFD\uFFFD");
  EXPECT_EQ(utf8_replace_invalid("\xed\xa0\x80"), "\uFFFD\uFFFD\uFFFD");
}

TEST(Utf8, IncompleteSuffixIsWhatMayStillBecomeACharacter) {
  EXPECT_EQ(utf8_incomplete_suffix("abc"), 0u);
  EXPECT_EQ(utf8_incomplete_suffix("a\xe4\xbd"), 2u);
  EXPECT_EQ(utf8_incomplete_suffix("a\xf0\x9f\x98"), 3u);
  EXPECT_EQ(utf8_incomplete_suffix("\xe4\xbd\xa0"), 0u);
  EXPECT_EQ(utf8_incomplete_suffix("\xff"), 0u);
  EXPECT_EQ(utf8_incomplete_suffix("\xed\xa0"), 0u);  // a surrogate can never become valid
}

TEST(Utf8, OneBadByteIsFoundAtEveryPlaceOfALongText) {
  const std::string good = "plain ascii text, then 日本語 and é, and once more plain text";
  EXPECT_TRUE(is_valid_utf8(good));
  EXPECT_TRUE(is_valid_utf8(""));
  EXPECT_EQ(utf8_length(good), 58u);
  for (size_t i = 0; i <= good.size(); ++i) {
    std::string bad = good;
    bad.insert(i, "\xff");
    EXPECT_FALSE(is_valid_utf8(bad)) << i;
  }
}

TEST(Utf8, EveryCharacterRoundTrips) {
  for (char32_t c = 0; c <= 0x10ffff; c += c < 0x800 ? 1 : 61) {
    if (c >= 0xd800 && c <= 0xdfff) continue;
    std::string text;
    append_utf8(text, c);
    const Utf8Char back = utf8_at(text, 0);
    ASSERT_TRUE(back.valid);
    ASSERT_EQ(back.code, c);
    ASSERT_EQ(static_cast<size_t>(back.bytes), text.size());
  }
}

TEST(DType, HalfRoundTripsEveryValue) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const f16 x{static_cast<uint16_t>(bits)};
    const float value = to_float(x);
    if (value != value) continue;
    ASSERT_EQ(to_f16(value).bits, bits) << value;
  }
  EXPECT_EQ(to_f16(65520.f).bits, 0x7c00);
  EXPECT_EQ(to_f16(65519.f).bits, 0x7bff);
  EXPECT_EQ(to_float(to_f16(0x1p-25f)), 0.f);         // a tie goes to even
  EXPECT_EQ(to_float(to_f16(0x1.8p-24f)), 0x1p-23f);  // a tie goes to even
}

TEST(DType, Bf16RoundsToNearestEven) {
  EXPECT_EQ(to_bf16(1.00390625f).bits, 0x3f80);  // tie, even below
  EXPECT_EQ(to_bf16(1.01171875f).bits, 0x3f82);  // tie, even above
  EXPECT_EQ(dtype_from_name("torch.bfloat16"), DType::kBf16);
  EXPECT_EQ(dtype_from_name("half"), DType::kF16);
  EXPECT_EQ(dtype_from_name("float8"), std::nullopt);
}

TEST(Philox, MatchesThePublishedVectors) {
  // Known answers of Random123 (kat_vectors), philox4x32 10 rounds.
  EXPECT_EQ(philox(0, 0, 0), (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox(~0ull, ~0ull, ~0ull), (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(Text, NearestNameIsOnlyGivenWhenNear) {
  const std::vector<std::string> names = {"temperature", "top_p", "top_k"};
  EXPECT_EQ(nearest_name("temprature", names), "temperature");
  EXPECT_EQ(nearest_name("banana", names), "");
  EXPECT_EQ(format_count(-1234567), "-1,234,567");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
}

TEST(ByteSize, UnitsAreBinaryWithAnIAndDecimalWithout) {
  EXPECT_EQ(*parse_byte_size("32GiB"), int64_t{32} << 30);
  EXPECT_EQ(*parse_byte_size(" 1.5 tib "), int64_t{3} << 39);
  EXPECT_EQ(*parse_byte_size("80GB"), 80'000'000'000);
  EXPECT_EQ(*parse_byte_size("7kB"), 7000);
  EXPECT_EQ(*parse_byte_size("4096"), 4096);
  EXPECT_EQ(*parse_byte_size("4096 B"), 4096);
}

TEST(ByteSize, WhatIsNoSizeIsRefusedWithItsText) {
  for (const char* text : {"", "GiB", "-1GiB", "0", "0.5", "12 GiBs", "1e3", "inf", "nan", "99999999TiB", "1 2"}) {
    const Result<int64_t> size = parse_byte_size(text);
    ASSERT_FALSE(size.ok()) << text;
    EXPECT_NE(size.status().message().find(std::string("'") + text + "'"), std::string::npos) << text;
  }
}

TEST(File, AtomicWriteLeavesNothingWithoutCommit) {
  const TemporaryDirectory folder;
  const std::string path = folder.file("x.txt");
  {
    auto writer = AtomicFileWriter::create(path);
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE(writer->write("half").ok());
  }
  EXPECT_TRUE(list_directory(folder.path())->empty());
  ASSERT_TRUE(write_file(path, "whole").ok());
  EXPECT_EQ(*read_file(path), "whole");
  EXPECT_EQ(read_file(path, 3).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(read_file(folder.file("none")).status().code(), Code::kNotFound);
  EXPECT_EQ((*MappedFile::open(path))->text(), "whole");
  EXPECT_FALSE(MappedFile::open(folder.path()).ok());
}

TEST(Cpu, MachineIsDescribed) {
  const MachineInfo info = machine_info();
  EXPECT_GE(info.cores, 1);
  EXPECT_GT(info.memory_bytes, 0);
  EXPECT_GT(resident_bytes(), 0);
}

}  // namespace
}  // namespace millrace
