/** How the service keeps up: throughput, latency and lag over the last minutes. */

import { get } from "../api.js";
import { lineChart } from "../components/chart.js";
import { failed } from "../components/states.js";
import { fill, h } from "../dom.js";
import { compact, counted, milliseconds, rate } from "../format.js";
import { hrefOf } from "../route.js";

const MINUTES = 10;
const ASK_EVERY_MS = 5000;
const LONGEST_BRIDGE_MS = 45000;

/** Lag is told as of now only, so its past is what this tab has seen; it outlives leaving the view. */
const lags = [];

/** A strip of cards that keeps itself up to date until `signal` aborts. */
export function trends(signal) {
  const cards = {
    throughput: card("Throughput", "images/s", lineChart({ label: "Throughput, images per second", format: rate, area: true, floor: 1 })),
    latency: card("Latency", "median", lineChart({ label: "Latency from arrival to verdict", format: milliseconds })),
    lag: card("Lag", "behind the feed", lineChart({ label: "Lag, in seconds", format: (value) => milliseconds(value * 1000), area: true, floor: 1 })),
  };
  const totals = h("dl", { class: "trend-totals" });
  const strip = h("div", { class: "trends", role: "group", "aria-label": `The last ${MINUTES} minutes` },
    Object.values(cards).map((one) => one.element), h("section", { class: "card trend" }, h("h2", { class: "trend-name" }, "In all"), totals));
  const trouble = h("div", { class: "card", hidden: true });
  keepUp();
  return h("div", { class: "trends-frame" }, strip, trouble);

  async function keepUp() {
    while (!signal.aborted) {
      try {
        if (!document.hidden) draw(await get("v1/stats", { minutes: MINUTES }, { signal }));
        trouble.hidden = true;
        strip.hidden = false;
      } catch (problem) {
        if (signal.aborted) return;
        fill(trouble, failed(problem, { slim: true }));
        trouble.hidden = false;
        strip.hidden = true;
      }
      await new Promise((resolve) => { setTimeout(resolve, ASK_EVERY_MS); });
    }
  }

  function draw({ points, lag, totals: all }) {
    const at = points.map((point) => Date.parse(point.time));
    const series = (name, key) => ({ name, points: points.map((point, index) => ({ time: at[index], value: point[key] })) });
    const throughput = smoothed(series("Throughput", "images_per_second"));
    cards.throughput.update(rate(throughput.points.at(-1)?.value), [throughput]);
    cards.latency.update(milliseconds(points.findLast((point) => Number.isFinite(point.latency_p50_ms))?.latency_p50_ms),
      [bridged(series("Median", "latency_p50_ms")), bridged(series("99 of 100 below", "latency_p99_ms"))]);
    remember(lag);
    cards.lag.update(lag ? inTime(lag) : "–", [{ name: "Lag", points: lags }], lag ? `behind, ${counted(lag.records, "record")}` : "not known", Date.now() - MINUTES * 60000);
    fill(totals,
      total("Images stored", compact(all?.images)),
      total("Waiting for people", h("a", { href: hrefOf("review") }, compact(all?.review_waiting))),
      total("Dead letters", compact(all?.dead_letters)));
  }
}

/** Rows arrive in batches, so that single intervals swing between nothing and much: the mean of four. */
function smoothed({ name, points }) {
  return { name, points: points.map(({ time }, index) => {
    const near = points.slice(Math.max(index - 3, 0), index + 1).map((point) => point.value).filter(Number.isFinite);
    return { time, value: near.length ? near.reduce((sum, value) => sum + value, 0) / near.length : null };
  }) };
}

/** Leaves out short times without an image, so that a slow feed has a line and not dots; long ones stay gaps. */
function bridged({ name, points }) {
  let last = -Infinity;
  const next = points.map(() => Infinity);
  for (let index = points.length - 1, after = Infinity; index >= 0; index -= 1) {
    if (Number.isFinite(points[index].value)) after = points[index].time;
    next[index] = after;
  }
  return { name, points: points.filter((point, index) => {
    if (Number.isFinite(point.value)) last = point.time;
    return Number.isFinite(point.value) || next[index] - last > LONGEST_BRIDGE_MS;
  }) };
}

const inTime = (lag) => (Number.isFinite(lag.seconds) ? milliseconds(lag.seconds * 1000) : compact(lag.records));

function remember(lag) {
  const now = Date.now();
  lags.push({ time: now, value: lag && Number.isFinite(lag.seconds) ? lag.seconds : null });
  while (lags[0].time < now - MINUTES * 60000) lags.shift();
}

function total(name, value) {
  return h("div", {}, h("dt", {}, name), h("dd", { class: "figures" }, value));
}

function card(name, unit, chart) {
  const figure = h("span", { class: "trend-figure figures" }, "–");
  const words = h("span", { class: "soft small" }, unit);
  return {
    element: h("section", { class: "card trend" }, h("h2", { class: "trend-name" }, name), h("p", { class: "row" }, figure, words), chart.element),
    update(now, series, unitNow, from) {
      figure.textContent = now;
      if (unitNow) words.textContent = unitNow;
      chart.update(series, from);
    },
  };
}
