// The style and the script of the HTML report. The script only reads the page: it shows the values that charts carry in
// data-hover, always as text.
#include "report/html_report.h"

namespace millrace::report {

const char* const kPageStyle = R"css(
:root{--ground:#f5f6f8;--paper:#fff;--ink:#1b1f24;--faint:#59626e;--rule:#d9dde3;--good:#0b7a3b;--bad:#c4001a}
@media(prefers-color-scheme:dark){:root{--ground:#0d0f13;--paper:#15181d;--ink:#e6e9ee;--faint:#a2abb8;--rule:#2c323a;
--good:#4cd07d;--bad:#ff6b6b}}
body{margin:0 auto;padding:16px 24px;max-width:1520px;background:var(--ground);color:var(--ink);
font:15px/1.45 system-ui,sans-serif}
h1{font-size:22px;margin:8px 0}h2{font-size:17px;margin:0 0 8px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:8px 0;overflow-wrap:anywhere}
dt{color:var(--faint)}dd{margin:0}
.box,.panel{background:var(--paper);border:1px solid var(--rule);border-radius:8px;padding:14px 18px;margin:14px 0;
overflow-wrap:anywhere}
.box{border-left-width:8px}.box.good{border-left-color:var(--good)}.box.bad{border-left-color:var(--bad)}
.box.bad h2,.mark,[data-valid=false]>caption{color:var(--bad);font-weight:700}
.box ul{margin:0;padding:0;list-style:none;columns:36em}
li b{display:inline-block;min-width:5em}li.good b{color:var(--good)}li.bad,li.bad b{color:var(--bad)}
li.unknown b{color:var(--faint)}
.mark{margin:4px 0;font-size:13px}
figure{display:inline-block;margin:6px;max-width:100%;vertical-align:top}
figure svg{max-width:100%;height:auto}
figure>.mark{width:0;min-width:100%}
figure[data-valid=false],table[data-valid=false]{outline:2px dashed var(--bad);outline-offset:2px}
.scroll{overflow-x:auto;padding:4px}
table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums;margin:6px 0}
caption{text-align:left;font-weight:600;padding:4px 0;width:max-content;max-width:80vw}
th,td{padding:3px 10px;border-bottom:1px solid var(--rule)}
th{color:var(--faint);font-weight:600}th[title]{text-decoration:underline dotted;cursor:help}
.l{text-align:left}.r{text-align:right}
#tip{position:fixed;pointer-events:none;background:var(--ink);color:var(--paper);padding:6px 9px;border-radius:5px;
font-size:13px;white-space:pre;z-index:2;max-width:60ch;overflow:hidden}
.cursor{stroke:currentColor;stroke-width:1;opacity:.5;fill:none}
@media print{body{background:none}.panel{break-inside:avoid}}
)css";

const char* const kPageScript = R"js("use strict";
(() => {
  const tip = document.getElementById("tip");
  const shown = v => typeof v !== "number" ? String(v)
    : v !== 0 && (Math.abs(v) >= 1e6 || Math.abs(v) < 1e-3) ? v.toExponential(3) : String(Number(v.toPrecision(5)));
  const nearest = (list, at) => {
    let best = 0;
    for (let i = 1; i < list.length; ++i) if (Math.abs(list[i] - at) < Math.abs(list[best] - at)) best = i;
    return best;
  };
  const readOut = (hover, at) => {
    const lines = [];
    for (const s of hover.series) {
      if (!s.p.length) continue;
      const i = nearest(s.p, at);
      if (Math.abs(s.p[i] - at) > 40 && hover.series.length > 1) continue;
      lines.push(hover.by === "y" ? shown(s.x[i]) + ": " + shown(s.y[i])
        : (s.n ? s.n + ": " : "") + hover.y + " " + shown(s.y[i]) + " @ " + hover.x + " " + shown(s.x[i]));
    }
    return lines.join("\n");
  };
  const place = event => {
    tip.hidden = false;
    tip.style.left = Math.max(0, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)) + "px";
    tip.style.top = Math.max(0, Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)) + "px";
  };
  let charts = 0;
  for (const svg of document.querySelectorAll("svg[data-hover]")) {
    const hover = JSON.parse(svg.dataset.hover), [left, top, right, bottom] = hover.box.map(Number);
    const cursor = document.createElementNS("http://www.w3.org/2000/svg", "path");
    cursor.setAttribute("class", "cursor");
    svg.append(cursor);
    const leave = () => { tip.hidden = true; cursor.setAttribute("d", ""); };
    svg.addEventListener("pointermove", event => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      if (at.x < left || at.x > right || at.y < top || at.y > bottom) return leave();
      const text = readOut(hover, hover.by === "x" ? at.x : at.y);
      if (!text) return leave();
      tip.textContent = text;
      cursor.setAttribute("d", hover.by === "x" ? `M${at.x} ${top}V${bottom}` : `M${left} ${at.y}H${right}`);
      place(event);
    });
    svg.addEventListener("pointerleave", leave);
    ++charts;
  }
  document.body.dataset.charts = String(charts);
})();
)js";

}  // namespace millrace::report
