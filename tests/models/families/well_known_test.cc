#include "models/families/well_known.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "models/families/planner.h"
#include "models/families/read_spec.h"

namespace millrace {
namespace {

TEST(WellKnown, EveryConfigIsReadWholeByItsFamily) {
  for (const WellKnownModel& model : well_known_models()) {
    SCOPED_TRACE(model.name);
    const Result<SpecReading> reading = read_spec(model.config);
    ASSERT_TRUE(reading.ok()) << reading.status().message();
    EXPECT_EQ(reading->unknown_keys, std::vector<std::string>{});
  }
}

TEST(WellKnown, ParametersAreWithinOnePercentOfThePublishedNumber) {
  for (const WellKnownModel& model : well_known_models()) {
    const Result<SpecReading> reading = read_spec(model.config);
    ASSERT_TRUE(reading.ok()) << model.name << ": " << reading.status().message();
    const double billions = static_cast<double>(model_size(reading->spec).parameters) / 1e9;
    EXPECT_NEAR(billions, model.billions, 0.01 * model.billions) << model.name;
  }
}

// Authors count the tables of tokens or leave them out, so this only tells an expert too many from one too few.
TEST(WellKnown, ActiveParametersAreNearThePublishedNumber) {
  for (const WellKnownModel& model : well_known_models()) {
    const ModelSize size = model_size(read_spec(model.config)->spec);
    const double billions = static_cast<double>(size.active_parameters) / 1e9;
    if (model.active_billions > 0) {
      EXPECT_NEAR(billions, model.active_billions, 0.12 * model.active_billions) << model.name;
    } else {
      EXPECT_EQ(size.active_parameters, size.parameters) << model.name;
    }
  }
}

TEST(WellKnown, NamesAreDifferentWithAndWithoutTheirOwner) {
  std::set<std::string> names;
  for (const WellKnownModel& model : well_known_models()) {
    ASSERT_NE(model.name.find('/'), std::string::npos) << model.name;
    EXPECT_TRUE(names.insert(model.name.substr(model.name.find('/') + 1)).second) << model.name;
  }
}

TEST(WellKnown, AModelIsFoundWithOrWithoutItsOwnerInAnyCase) {
  const WellKnownModel* model = find_well_known("Qwen/Qwen2.5-7B");
  ASSERT_NE(model, nullptr);
  EXPECT_EQ(model->config["hidden_size"], 3584);
  EXPECT_EQ(find_well_known("qwen2.5-7b"), model);
  EXPECT_EQ(find_well_known("Qwen2.5-7"), nullptr);
  EXPECT_EQ(find_well_known(""), nullptr);
}

TEST(WellKnown, AMisspeltNameIsAnsweredWithTheNearest) {
  EXPECT_EQ(nearest_well_known("qwen2.5-7"), "; did you mean 'Qwen/Qwen2.5-7B'?");
  EXPECT_EQ(nearest_well_known("meta-lama/Llama-3.1-8B"), "; did you mean 'meta-llama/Llama-3.1-8B'?");
  EXPECT_EQ(nearest_well_known("/models/xyzzy"), "");
}

TEST(WellKnown, ARowTakesTheKeysOfTheRowItIsLike) {
  const Json& config = find_well_known("meta-llama/Llama-3.2-3B")->config;
  EXPECT_EQ(config["vocab_size"], 128256);       // of Meta-Llama-3-8B
  EXPECT_EQ(config["intermediate_size"], 8192);  // of Llama-3.2-1B
  EXPECT_EQ(config["hidden_size"], 3072);        // its own
  EXPECT_EQ(config["rope_scaling"]["factor"], 32.0);
  EXPECT_EQ(config["rope_scaling"]["rope_type"], "llama3");
}

}  // namespace
}  // namespace millrace
