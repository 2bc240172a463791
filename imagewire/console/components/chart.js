/**
 * Small charts in SVG: lines over time and bars by name. Each is drawn at its real width (so that
 * letters are not stretched), tells its content in words to screen readers, and shows exact values
 * under the pointer or, once focused, with the arrow keys.
 */

import { fill, h, s } from "../dom.js";
import { time as clock } from "../format.js";

const LEFT = 4;
const RIGHT = 4;
const TOP = 14;
const BOTTOM = 18;

/** The least of 1, 2, 2.5, 5 × 10ⁿ that is not below `value`, so that axes end at a round figure. */
export function niceCeiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

/**
 * lineChart({label: "Latency", format: milliseconds, height: 96, area: false})
 *
 * Returns {element, update}. update(series) with series = [{name, points: [{time, value}]}]: `time`
 * in milliseconds since the epoch, ascending; a `value` of null leaves a gap. At most four series.
 * update(series, from) begins the axis at `from`, also where nothing is known of that time.
 */
export function lineChart({ label, format = String, height = 96, area = false, floor = 0 }) {
  const legend = h("div", { class: "legend-row figures" });
  const drawing = s("svg", { height, role: "img" });
  const element = h("div", { class: "chart", tabindex: 0, role: "group", "aria-label": label }, drawing, legend);
  let series = [];
  let begin = null;
  let width = 0;
  let pointed = null;

  const times = () => [...new Set(series.flatMap((one) => one.points.map((point) => point.time)))].sort((a, b) => a - b);
  const known = () => series.flatMap((one) => one.points).filter((point) => Number.isFinite(point.value));

  function draw() {
    if (!width) return;
    const all = times();
    const top = niceCeiling(Math.max(floor, ...known().map((point) => point.value)));
    const [from, to] = [begin ?? all[0] ?? 0, all.at(-1) ?? 1];
    const x = (at) => LEFT + (width - LEFT - RIGHT) * (to === from ? 1 : (at - from) / (to - from));
    const y = (value) => TOP + (height - TOP - BOTTOM) * (1 - value / top);
    drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawing.setAttribute("aria-label", inWords());
    fill(drawing,
      [0, top / 2, top].map((value) => s("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) })),
      series.map((one, index) => runs(one.points).map((run) => [
        area && run.length > 1 && s("path", { class: `area s${index + 1}`, d: `${path(run, x, y)}L${x(run.at(-1).time)} ${y(0)}L${x(run[0].time)} ${y(0)}Z` }),
        run.length > 1 ? s("path", { class: `line s${index + 1}`, d: path(run, x, y) })
          : s("circle", { class: `dot s${index + 1}`, cx: x(run[0].time), cy: y(run[0].value), r: 2 }),
      ])),
      s("text", { x: LEFT, y: TOP - 4 }, known().length ? format(top) : ""),
      from < to && all.length > 0 && s("text", { x: LEFT, y: height - 4 }, clock(from)),
      all.length > 0 && s("text", { x: width - RIGHT, y: height - 4, "text-anchor": "end" }, clock(to)),
      pointed !== null && s("line", { class: "cross", x1: x(pointed), x2: x(pointed), y1: TOP, y2: height - BOTTOM }),
      pointed !== null && series.map((one, index) => {
        const point = at(one, pointed);
        return point && s("circle", { class: `dot s${index + 1}`, cx: x(point.time), cy: y(point.value), r: 3.5 });
      }));
    writeLegend();
  }

  function at(one, when) {
    return one.points.find((point) => point.time === when && Number.isFinite(point.value));
  }

  function writeLegend() {
    const several = series.length > 1;
    const values = known().map((point) => point.value);
    fill(legend,
      series.length === 1 && pointed === null && h("span", {}, values.length ? `highest ${format(Math.max(...values))}` : "nothing in this time"),
      several && series.map((one, index) => {
        const point = pointed !== null && at(one, pointed);
        return h("span", { class: `key s${index + 1}` }, one.name, point && ` ${format(point.value)}`);
      }),
      pointed !== null && h("span", {}, !several && at(series[0], pointed) ? `${format(at(series[0], pointed).value)} at ` : "", clock(pointed)));
  }

  function inWords() {
    const parts = series.map((one) => {
      const values = one.points.filter((point) => Number.isFinite(point.value)).map((point) => point.value);
      return values.length ? `${one.name}: now ${format(values.at(-1))}, highest ${format(Math.max(...values))}` : `${one.name}: no data`;
    });
    return `${label}. ${parts.join("; ")}`;
  }

  function point(event) {
    const all = times();
    if (all.length < 2) return;
    const part = (event.clientX - drawing.getBoundingClientRect().left - LEFT) / (width - LEFT - RIGHT);
    const first = begin ?? all[0];
    const when = first + part * (all.at(-1) - first);
    pointed = all.reduce((best, one) => (Math.abs(one - when) < Math.abs(best - when) ? one : best));
    draw();
  }

  function leave() {
    pointed = null;
    draw();
  }

  drawing.addEventListener("pointermove", point);
  drawing.addEventListener("pointerleave", leave);
  element.addEventListener("blur", leave);
  element.addEventListener("keydown", (event) => {
    const all = times();
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !all.length) return;
    const now = pointed === null ? all.length : all.indexOf(pointed);
    pointed = all[Math.min(Math.max(now + step, 0), all.length - 1)];
    event.preventDefault();
    draw();
  });
  new ResizeObserver(([entry]) => { width = Math.round(entry.contentRect.width); draw(); }).observe(element);
  return { element, update(next, from = null) { series = next; begin = from; if (pointed !== null && !times().includes(pointed)) pointed = null; draw(); } };
}

function runs(points) {
  const found = [[]];
  for (const point of points) {
    if (Number.isFinite(point.value)) found.at(-1).push(point);
    else if (found.at(-1).length) found.push([]);
  }
  return found.filter((run) => run.length);
}

function path(run, x, y) {
  return run.map((point, index) => `${index ? "L" : "M"}${x(point.time).toFixed(1)} ${y(point.value).toFixed(1)}`).join("");
}

/**
 * barChart({label: "Images by label", bars: [{name, value}], format}) → element.
 * Horizontal bars: names of any length stay readable, on a phone as well.
 */
export function barChart({ label, bars, format = String, tone = "s1" }) {
  const most = Math.max(...bars.map((bar) => bar.value), 0) || 1;
  return h("table", { class: "bars", "aria-label": label },
    h("tbody", {}, bars.map((bar) => h("tr", {},
      h("th", { scope: "row" }, bar.name),
      h("td", { class: "bars-track" }, h("span", { class: `bars-fill ${tone}`, style: { width: `${(bar.value / most) * 100}%` } })),
      h("td", { class: "number figures" }, format(bar.value))))));
}

/** A bar for one value between 0 and 1, as a score: meter(0.83, "person"). The figure stands beside it. */
export function meter(value, tone = "") {
  return h("span", { class: "meter", "aria-hidden": "true" },
    h("span", { class: tone, style: { width: `${Math.min(Math.max(value, 0), 1) * 100}%` } }));
}
