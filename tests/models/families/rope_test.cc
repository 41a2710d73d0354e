#include "models/families/rope.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace millrace {
namespace {

using Scaling = Rope::Scaling;

// Expected numbers: the formulas of the papers and of transformers 4.46.3 (modeling_rope_utils.py), evaluated in double
// precision by a separate Python program. The function rounds to float32 step by step.
constexpr double kRelative = 1e-6;

void expect_frequencies(const Rope& rope, int64_t length, const std::vector<double>& want, double attention = 1) {
  const RopeFrequencies got = rope_frequencies(rope, length);
  ASSERT_EQ(got.inv_freq.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_NEAR(got.inv_freq[i], want[i], kRelative * want[i]) << "pair " << i;
    EXPECT_EQ(got.inv_freq[i], static_cast<double>(static_cast<float>(got.inv_freq[i]))) << "pair " << i;
  }
  EXPECT_NEAR(got.attention_factor, attention, 1e-12);
}

Rope rope_of(Scaling scaling, double theta, int64_t dims, double factor, int64_t original) {
  Rope rope;
  rope.scaling = scaling, rope.theta = theta, rope.dims = dims, rope.factor = factor;
  rope.original_max_positions = original;
  return rope;
}

const std::vector<double> kPlain16 = {1.0,  0.31622776601683794,   0.1,   0.03162277660168379,
                                      0.01, 0.0031622776601683794, 0.001, 0.00031622776601683794};

TEST(Rope, DefaultIsAPowerOfTheta) { expect_frequencies(rope_of(Scaling::kNone, 10000, 16, 1, 0), 1, kPlain16); }

TEST(Rope, LinearDividesEveryFrequencyByTheFactor) {
  expect_frequencies(rope_of(Scaling::kLinear, 10000, 16, 4, 128), 1,
                     {0.25, 0.07905694150420949, 0.025, 0.007905694150420948, 0.0025, 0.0007905694150420948, 0.00025,
                      7.905694150420948e-05});
}

TEST(Rope, DynamicChangesOnlyBeyondTheTrainedLength) {
  const Rope rope = rope_of(Scaling::kDynamic, 10000, 16, 2, 32);
  EXPECT_TRUE(rope.depends_on_length());
  expect_frequencies(rope, 1, kPlain16);
  expect_frequencies(rope, 32, kPlain16);
  expect_frequencies(rope, 70,
                     {1.0, 0.26578613240310944, 0.07064226817780322, 0.018775735243161572, 0.00499033005330467,
                      0.0013263605242828512, 0.0003525282339212996, 9.369711585684087e-05});
}

TEST(Rope, YarnRampsBetweenKeptAndDividedFrequencies) {
  const std::vector<double> want = {1.0,     0.42175599389276186,    0.15811388300841897,   0.04445698525097307,
                                    0.025,   0.014058533129758728,   0.007905694150420948,  0.004445698525097307,
                                    0.0025,  0.0014058533129758727,  0.0007905694150420948, 0.0004445698525097307,
                                    0.00025, 0.00014058533129758727, 7.905694150420948e-05, 4.445698525097307e-05};
  Rope rope = rope_of(Scaling::kYarn, 10000, 32, 4, 32);
  EXPECT_FALSE(rope.depends_on_length());
  expect_frequencies(rope, 1, want, 1.138629436111989);
  rope.attention_factor = 1.5;
  expect_frequencies(rope, 1, want, 1.5);
}

TEST(Rope, YarnRangeIsRoundedOnlyWhereTruncated) {
  Rope rope = rope_of(Scaling::kYarn, 1e6, 16, 8, 4096);
  expect_frequencies(rope, 9,
                     {1.0, 0.1778279410038923, 0.022399466759526022, 0.002343088854959788, 0.000125,
                      2.2228492625486534e-05, 3.952847075210474e-06, 7.029266564879364e-07},
                     1.2079441541679836);
  rope.truncate = false;
  expect_frequencies(rope, 9,
                     {1.0, 0.1778279410038923, 0.028112080847039745, 0.002547288055089895, 0.000125,
                      2.2228492625486534e-05, 3.952847075210474e-06, 7.029266564879364e-07},
                     1.2079441541679836);
}

TEST(Rope, TwoMscalesGiveTheirRatioAsAttentionFactor) {
  Rope rope = rope_of(Scaling::kYarn, 10000, 16, 40, 4096);
  rope.mscale = 0.707, rope.mscale_all_dim = 1;
  EXPECT_NEAR(rope_frequencies(rope, 1).attention_factor, 0.9210423553163399, 1e-12);
  rope.mscale_all_dim = 0;
  EXPECT_NEAR(rope_frequencies(rope, 1).attention_factor, 0.1 * std::log(40) + 1, 1e-12);
}

TEST(Rope, Llama3KeepsBlendsAndDividesByWavelength) {
  Rope rope = rope_of(Scaling::kLlama3, 500000, 32, 8, 32);
  rope.low_freq_factor = 1, rope.high_freq_factor = 4;
  expect_frequencies(rope, 1,
                     {1.0, 0.2146673579985814, 0.02424034309358572, 0.010674637535720701, 0.004700753866357992,
                      0.002070055010124306, 0.0009115830921521387, 0.00040143074934407386, 0.00017677669529663688,
                      7.78465527393245e-05, 3.428102195952591e-05, 1.509621717643313e-05, 6.647869871181235e-06,
                      2.9274998701761677e-06, 1.2891731721515574e-06, 5.677088100759837e-07});
}

TEST(Rope, LongRopeUsesTheLongFactorsThroughoutUnlessItSwitches) {
  Rope rope = rope_of(Scaling::kLongRope, 10000, 8, 4, 64);
  rope.short_factor = {1, 1.5, 2, 2.5}, rope.long_factor = {2, 4, 8, 16};
  const std::vector<double> is_long = {0.5, 0.025, 0.00125, 6.25e-05};
  const std::vector<double> is_short = {1.0, 0.06666666666666667, 0.005, 0.0004};
  const double attention = 1.1547005383792517;
  EXPECT_FALSE(rope.depends_on_length());
  expect_frequencies(rope, 10, is_long, attention);
  rope.switches_at_original = true;
  EXPECT_TRUE(rope.depends_on_length());
  expect_frequencies(rope, 64, is_short, attention);
  expect_frequencies(rope, 65, is_long, attention);
  rope.switches_at_original = false, rope.factor = 1;
  expect_frequencies(rope, 1000, is_short, 1);
}

}  // namespace
}  // namespace millrace
