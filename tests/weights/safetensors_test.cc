#include "weights/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/file.h"
#include "base/random.h"

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A file with this header and `data_bytes` bytes 0, 1, 2 ... of data.
std::string file_of(const std::string& header, size_t data_bytes) {
  const uint64_t n = header.size();
  std::string file(reinterpret_cast<const char*>(&n), 8);
  file += header;
  for (size_t i = 0; i < data_bytes; ++i) file += static_cast<char>(i);
  return file;
}
Result<SafetensorsHeader> parse(const std::string& file) {
  return parse_safetensors_header(std::as_bytes(std::span(file)));
}

TEST(Safetensors, AWellFormedHeaderIsReadInTheOrderOfItsData) {
  const auto header = parse(file_of(R"({"__metadata__":{"format":"pt"},
      "b":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]},"a":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]},
      "s":{"dtype":"I64","shape":[],"data_offsets":[32,40]},"e":{"dtype":"F8_E4M3","shape":[0,7],"data_offsets":[8,8]}})",
                                    40));
  ASSERT_TRUE(header.ok()) << header.status().to_string();
  ASSERT_EQ(header->tensors.size(), 4u);
  EXPECT_EQ(header->tensors[0].name, "a");
  EXPECT_EQ(header->tensors[1].name, "e");
  EXPECT_FALSE(header->tensors[1].dtype.has_value());
  EXPECT_EQ(header->tensors[2].name, "b");
  EXPECT_THAT(header->tensors[2].shape, ElementsAre(2, 3));
  EXPECT_TRUE(header->tensors[3].shape.empty());
  EXPECT_EQ(header->metadata.at("format"), "pt");
}

struct Broken {
  const char* name;
  const char* header;
  size_t data_bytes;
  const char* message;
};
const Broken kBroken[] = {
    {"list", "[]", 0, "the header does not begin with '{'"},
    {"cut", R"({"a":)", 0, "the header is not valid JSON at byte"},
    {"trailing", R"({} x)", 0, "the header is not valid JSON at byte"},
    {"utf8", "{\"\xff\":1}", 0, "the header is not valid JSON at byte"},
    {"number", R"({"a":7})", 0, "'a' is 7; it must be an object"},
    {"dtype", R"({"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}})", 4, "tensor 'a': dtype 'F31' is not known"},
    {"dtype_kind", R"({"a":{"dtype":4,"shape":[1],"data_offsets":[0,4]}})", 4, "dtype is 4; it must be a string"},
    {"no_dtype", R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4, "tensor 'a' has no dtype"},
    {"no_shape", R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4, "tensor 'a' has no shape"},
    {"no_offsets", R"({"a":{"dtype":"F32","shape":[1]}})", 4, "tensor 'a' has no data_offsets"},
    {"extra", R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", 4, "tensor 'a': unknown key 'x'"},
    {"negative", R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "shape holds -1; it must hold whole"},
    {"float", R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", 4, "shape holds 1.5; it must hold whole"},
    {"nested", R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", 4, "shape holds a list"},
    {"null", R"({"a":{"dtype":"F32","shape":null,"data_offsets":[0,4]}})", 4, "shape is null; it must be a list"},
    {"huge_number", R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4]}})", 4, "too large"},
    {"overflow", R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", 4,
     "more elements than 62 bits can count"},
    {"one_offset", R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, "data_offsets has 1 numbers"},
    {"three_offsets", R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}})", 4, "more than two numbers"},
    {"backwards", R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, "[4, 0] end before they begin"},
    {"span", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4,
     "span 4 bytes, but dtype and shape need 8"},
    {"outside", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4,
     "tensor 'a' ends at byte 8 of the data, but the file has only 4"},
    {"overlap",
     R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
     8, "tensor 'b' begins at byte 4, inside the tensor before it, which ends at 8"},
    {"gap",
     R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})", 4,
     "tensor 'b' begins at byte 3, but the data before it end at 2: there is a gap"},
    {"late", R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})", 4, "there is a gap"},
    {"rest", R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 4,
     "the data have 4 bytes, but the tensors cover 2"},
    {"twice",
     R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 2,
     "tensor 'a' is listed twice"},
    {"field_twice", R"({"a":{"dtype":"U8","dtype":"I8","shape":[2],"data_offsets":[0,2]}})", 2,
     "key 'dtype' is given twice"},
    {"metadata", R"({"__metadata__":{"a":1}})", 0, "__metadata__: 'a' is 1; it must be a string"},
    {"metadata_twice", R"({"__metadata__":{"a":"1","a":"2"}})", 0, "key 'a' is given twice"},
    {"metadata_object", R"({"__metadata__":{"a":{}}})", 0, "__metadata__: 'a' is an object; it must be a string"},
    {"metadata_list", R"({"__metadata__":[]})", 0, "'__metadata__' is a list; it must be an object"},
};
TEST(Safetensors, EachBrokenRuleIsRefusedByName) {
  for (const Broken& c : kBroken) {
    SCOPED_TRACE(c.name);
    const auto header = parse(file_of(c.header, c.data_bytes));
    ASSERT_FALSE(header.ok());
    EXPECT_EQ(header.status().code(), Code::kDataLoss);
    EXPECT_THAT(header.status().message(), HasSubstr(c.message));
  }
}

TEST(Safetensors, LengthsOfTheHeaderAreCheckedAgainstTheFile) {
  EXPECT_THAT(parse("1234567").status().message(), HasSubstr("the file has 7 bytes"));
  EXPECT_THAT(parse(std::string("\x10\0\0\0\0\0\0\0{}", 10)).status().message(),
              HasSubstr("the header claims 16 bytes, but the file has only 2"));
  EXPECT_THAT(parse(std::string("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10)).status().message(),
              HasSubstr("at most 100000000 are allowed"));
}

TEST(Safetensors, WhatIsWrittenIsReadBackUnderItsNames) {
  const TemporaryDirectory folder;
  Tensor odd = Tensor::zeros(DType::kU8, {3}), matrix = Tensor::zeros(DType::kF32, {2, 3});
  for (int i = 0; i < 6; ++i) matrix.data<float>()[i] = static_cast<float>(i);
  odd.data<uint8_t>()[2] = 9;
  const std::vector<NamedTensor> tensors = {
      {"odd", {odd}}, {"transposed", {matrix.transposed(0, 1)}}, {"rows", {matrix, matrix.rows(1, 2)}}};
  const std::string path = folder.file("x.safetensors");
  ASSERT_TRUE(write_safetensors(path, tensors, {{"format", "pt"}}).ok());
  const auto file = open_safetensors(path);
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_EQ((*file)->tensor("odd")->data<uint8_t>()[2], 9);
  EXPECT_EQ((*file)->tensor("transposed")->data<float>()[1], 3.0f);
  const Tensor rows = *(*file)->tensor("rows");
  EXPECT_EQ(rows.shape(), (Shape{3, 3}));
  EXPECT_EQ(rows.data<float>()[8], 5.0f);
  EXPECT_EQ((*file)->tensor("none").status().code(), Code::kNotFound);
}

TEST(Safetensors, UnalignedDataAreCopiedAndAlignedDataAreNot) {
  const TemporaryDirectory folder;
  std::string header =
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const std::string path = folder.file("x.safetensors");
  ASSERT_TRUE(write_file(path, file_of(header, 5)).ok());
  const auto file = open_safetensors(path);
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  const Tensor a = *(*file)->tensor("a"), b = *(*file)->tensor("b");
  EXPECT_EQ(a.raw(), (*file)->tensor("a")->raw());
  EXPECT_NE(b.raw(), (*file)->tensor("b")->raw());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(b.raw()) % 4, 0u);
  const uint8_t want[] = {1, 2, 3, 4};
  EXPECT_EQ(std::memcmp(b.raw(), want, 4), 0);
  const Tensor stored = *(*file)->stored("b");
  EXPECT_EQ(stored.raw(), (*file)->stored("b")->raw());
  EXPECT_EQ(std::memcmp(stored.raw(), want, 4), 0);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(stored.to_contiguous().raw()) % 4, 0u);
}

TEST(Safetensors, TensorsOutliveTheFileTheyPointInto) {
  const TemporaryDirectory folder;
  const std::string path = folder.file("x.safetensors");
  ASSERT_TRUE(write_safetensors(path, std::vector<NamedTensor>{{"a", {Tensor::zeros(DType::kF32, {1000})}}}).ok());
  Tensor tensor;
  {
    auto file = open_safetensors(path);
    tensor = *(*file)->tensor("a");
  }
  EXPECT_EQ(tensor.data<float>()[999], 0.0f);
}

TEST(Safetensors, TypesAndRanksThatNoTensorHasAreRefusedOnUse) {
  const TemporaryDirectory folder;
  const std::string path = folder.file("x.safetensors");
  ASSERT_TRUE(write_file(path, file_of(R"({"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},
      "b":{"dtype":"U8","shape":[1,1,1,1,1,1],"data_offsets":[2,3]}})",
                                       3))
                  .ok());
  const auto file = open_safetensors(path);
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_THAT((*file)->tensor("a").status().message(), HasSubstr("type F8_E4M3, which are not supported"));
  EXPECT_THAT((*file)->tensor("b").status().message(), HasSubstr("has 6 axes; at most 5"));
}

TEST(Safetensors, GitLfsPointersAreRecognised) {
  const TemporaryDirectory folder;
  ASSERT_TRUE(write_file(folder.file("p"), "version https://git-lfs.github.com/spec/v1\noid sha256:0\n").ok());
  EXPECT_THAT(open_safetensors(folder.file("p")).status().message(), HasSubstr("a Git LFS pointer"));
}

TEST(Safetensors, MutatedFilesGiveAHeaderOrAStatus) {
  const std::string valid =
      file_of(R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},
      "b":{"dtype":"BF16","shape":[4],"data_offsets":[16,24]},"c":{"dtype":"I64","shape":[],"data_offsets":[24,32]}})",
              32);
  ASSERT_TRUE(parse(valid).ok());
  Random random(3);
  const std::string_view kPieces[] = {"{", "}", "[", "]", "0", "9", "-", "\"", ",", ":", "18446744073709551615", "1e9"};
  int accepted = 0;
  for (int i = 0; i < 30000; ++i) {
    std::string file = valid;
    for (uint32_t n = 1 + random.below(4); n > 0; --n) {
      const uint32_t at = random.below(static_cast<uint32_t>(file.size()));
      if (const uint32_t way = random.below(4); way == 0)
        file[at] = static_cast<char>(random());
      else if (way == 1)
        file.replace(at, 1, kPieces[random.below(std::size(kPieces))]);
      else if (way == 2)
        file.erase(at, 1 + random.below(8));
      else
        file.resize(at + 1);
    }
    const auto header = parse(file);
    accepted += header.ok();
    if (header.ok()) {
      for (const SafetensorsEntry& entry : header->tensors) ASSERT_LE(header->data_begin + entry.end, file.size());
    } else {
      ASSERT_FALSE(header.status().message().empty());
    }
  }
  EXPECT_LT(accepted, 15000);
}

TEST(Safetensors, AFileOfAnotherWriterIsRead) {
  const std::string path = MILLRACE_SOURCE_DIR "/../shared/data/models/formats/test.safetensors";
  if (!file_exists(path)) GTEST_SKIP() << "the file of another writer: " << path << " is absent";
  const auto file = open_safetensors(path);
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_EQ((*file)->names().size(), 20u);
  EXPECT_EQ((*file)->tensor("key_7")->shape(), (Shape{10, 10}));
}

}  // namespace
}  // namespace millrace
