#include "tests/report/browser.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "base/file.h"
#include "base/text.h"

namespace millrace {
namespace {

// What runs in the page of a browser test: it points at every chart and leaves what it saw as JSON in an element.
constexpr const char* kProbe = R"js(<pre id="probe"></pre><script>
const seen = {tables: [], tips: [], data: JSON.parse(document.getElementById("data").textContent).data,
  valid: document.body.dataset.valid, charts: Number(document.body.dataset.charts),
  hacked: document.body.dataset.hacked === undefined ? "no" : "yes",
  images: document.images.length, resources: performance.getEntriesByType("resource").length,
  marks: [...document.querySelectorAll(".mark")].filter(m => m.getClientRects().length > 0).length};
for (const table of document.querySelectorAll("table"))
  seen.tables.push([...table.rows].map(row => [...row.cells].map(cell => cell.innerText)));
for (const svg of document.querySelectorAll("svg[data-hover]")) {
  const box = svg.getBoundingClientRect();
  svg.dispatchEvent(new PointerEvent("pointermove", {clientX: box.x + box.width * 0.53, clientY: box.y + box.height / 2}));
  seen.tips.push(document.getElementById("tip").hidden ? "" : document.getElementById("tip").innerText);
}
document.getElementById("probe").textContent = JSON.stringify(seen);
</script></body>)js";

// The document as headless Chromium has it after its scripts ran; "" when it failed or took over a minute.
std::string dumped_dom(const std::string& browser, const std::string& file, const TemporaryDirectory& folder) {
  const std::string command = fmt::format(
      "HOME='{0}' timeout -k 5 60 '{1}' --headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
      "--disable-background-networking --disable-component-update --disable-sync --disable-dev-shm-usage "
      "--window-size=1600,1200 --user-data-dir='{0}/profile' --dump-dom 'file://{2}' 2>'{0}/errors'",
      folder.path(), browser, file);
  std::FILE* pipe = ::popen(command.c_str(), "r");
  std::string out;
  char buffer[65536];
  for (size_t got; (got = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) out.append(buffer, got);
  return ::pclose(pipe) == 0 ? out : "";
}

}  // namespace

std::string chromium() {
  for (const std::string& folder : split(std::getenv("PATH") ? std::getenv("PATH") : "", ':'))
    if (::access((folder + "/chromium").c_str(), X_OK) == 0) return folder + "/chromium";
  return "";
}

std::string between(const std::string& text, const std::string& from, const std::string& to) {
  const size_t start = text.find(from);
  if (start == std::string::npos) return "";
  const size_t end = text.find(to, start + from.size());
  return end == std::string::npos ? "" : text.substr(start + from.size(), end - start - from.size());
}

Json seen_by_browser(std::string html, const std::string& browser) {
  const TemporaryDirectory folder;
  html.replace(html.rfind("</body>"), 7, kProbe);
  EXPECT_TRUE(write_file(folder.file("page.html"), html).ok());
  const std::string dom = dumped_dom(browser, folder.file("page.html"), folder);
  std::string json = between(dom, "<pre id=\"probe\">", "</pre>");
  for (const auto& [entity, plain] : {std::pair{"&lt;", "<"}, {"&gt;", ">"}, {"&nbsp;", " "}, {"&amp;", "&"}})
    for (size_t at; (at = json.find(entity)) != std::string::npos;) json.replace(at, strlen(entity), plain);
  const auto parsed = parse_json(json);
  EXPECT_TRUE(parsed.ok()) << "no probe in " << dom.size() << " bytes; " << *read_file(folder.file("errors"));
  return parsed.ok() ? *parsed : Json::object();
}

}  // namespace millrace
