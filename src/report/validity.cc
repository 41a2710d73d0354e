#include "report/validity.h"

namespace millrace::report {

const char* mark_name(Mark mark) {
  switch (mark) {
    case Mark::kGood:
      return "ok";
    case Mark::kBad:
      return "INVALID";
    case Mark::kUnknown:
      return "unknown";
  }
  return "";
}

std::string Validity::reason() const {
  std::string reasons;
  for (const ValidityItem& item : items_)
    if (item.mark == Mark::kBad)
      reasons += fmt::format("{}{} is {}{}", reasons.empty() ? "" : "; ", item.name, item.found,
                             item.wanted.empty() ? "" : " (wanted: " + item.wanted + ")");
  return reasons;
}

Table to_table(const Validity& validity) {
  Table table({{"Check", Align::kLeft}, {"Found", Align::kLeft}, {"Wanted", Align::kLeft}, {"", Align::kLeft}},
              "Validity");
  for (const ValidityItem& item : validity.items())
    table.add_row({item.name, item.found, item.wanted, mark_name(item.mark)});
  return table;
}

Json to_json(const Validity& validity) {
  Json items = Json::array();
  for (const ValidityItem& item : validity.items())
    items.push_back(
        {{"name", item.name}, {"found", item.found}, {"wanted", item.wanted}, {"mark", mark_name(item.mark)}});
  return {{"valid", validity.valid()}, {"items", std::move(items)}};
}

}  // namespace millrace::report
