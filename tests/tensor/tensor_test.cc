#include "tensor/tensor.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

Tensor counted(const Shape& shape) {
  Tensor t = Tensor::empty(DType::kF32, shape);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = static_cast<float>(i);
  return t;
}

TEST(Tensor, RowsShareMemoryAndKeepItAlive) {
  Tensor part;
  {
    const Tensor whole = counted({4, 3});
    part = whole.rows(1, 3);
  }
  EXPECT_EQ(part.shape(), (Shape{2, 3}));
  EXPECT_EQ(element_as_float(part, 0), 3.f);
  EXPECT_TRUE(part.contiguous());
}

TEST(Tensor, TransposedCopyHasTheElementsInTheNewOrder) {
  const Tensor t = counted({2, 3}).transposed(0, 1);
  EXPECT_FALSE(t.contiguous());
  const Tensor copy = t.to_contiguous();
  const float want[] = {0, 3, 1, 4, 2, 5};
  for (int i = 0; i < 6; ++i) EXPECT_EQ(element_as_float(copy, i), want[i]);
}

TEST(Tensor, ConversionRoundsAndReturns) {
  const Tensor t = counted({5, 7});
  for (const DType dtype : {DType::kBf16, DType::kF16, DType::kF64}) {
    const Tensor there = converted(t, dtype);
    EXPECT_EQ(there.dtype(), dtype);
    for (int64_t i = 0; i < t.numel(); ++i) EXPECT_EQ(element_as_float(there, i), element_as_float(t, i));
  }
}

TEST(Shape, PrintsAndCompares) {
  EXPECT_EQ((Shape{2, 3}).to_string(), "[2, 3]");
  EXPECT_FALSE((Shape{2, 3}) == (Shape{2, 3, 1}));
  EXPECT_EQ((Shape{}).numel(), 1);
}

}  // namespace
}  // namespace millrace
