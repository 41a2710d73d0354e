// A page as headless Chromium shows it.
#pragma once
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "base/json.h"

namespace millrace {

// The path of Chromium's program; "" where there is none.
std::string chromium();

// Opens a page of report/html_report.h, points at the middle of every chart, and returns what was seen:
// {"tables": [[[cell]]], "tips": [text under the pointer], "data": the page's raw numbers, "valid", "charts", "marks":
// visible marks of invalid figures, "images", "resources": loaded from elsewhere, "hacked": "no"}. At most a minute.
Json seen_by_browser(std::string html, const std::string& browser);

// Everything between the first `from` and the next `to`; "" without them.
std::string between(const std::string& text, const std::string& from, const std::string& to);

#define MR_NEED_CHROMIUM(browser)         \
  const std::string browser = chromium(); \
  if (browser.empty()) GTEST_SKIP() << "no chromium in PATH; tools/install_packages.sh --tests installs it"

}  // namespace millrace
