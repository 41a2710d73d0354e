// Memory plans as tables, as reasoning and as JSON. Text only; any thread.
#pragma once
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "base/json.h"
#include "models/families/planner.h"

namespace millrace::cli {

struct PlannedModel {
  std::string name;
  DecoderSpec spec;
  ModelPlan plan;
};

// One model: what it is, a line per precision, and what the numbers are for.
std::string plan_table(const PlannedModel& model, const PlanRequest& request);
// A line per model; devices and lengths for weights of `precision`.
std::string plan_list(std::span<const PlannedModel> models, const PlanRequest& request, Precision precision);
// Where every number of plan_table comes from.
std::string plan_reasons(const PlannedModel& model, const PlanRequest& request);

// What was asked for; and one model's numbers, in bytes, tokens and elements. Null where nothing fits.
OrderedJson request_json(const PlanRequest& request);
OrderedJson plan_json(const PlannedModel& model);

}  // namespace millrace::cli
