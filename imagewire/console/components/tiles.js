/**
 * A picture with its verdict, as on the wall, among results and neighbours. Its boxes are fetched
 * when somebody points at it or reaches it by keyboard, not before: a wall has hundreds of tiles.
 */

import { address, get } from "../api.js";
import { h } from "../dom.js";
import { ago, labelWords, time } from "../format.js";
import { picture } from "../pictures.js";
import { hrefOf } from "../route.js";
import { overlay } from "./boxes.js";
import { badge } from "./verdict.js";

const POINTED_AT_MS = 120;

/**
 * tile(summary, {signal, size: 320, aside})
 *
 * `summary` is an ImageSummary of the API. `aside`: text or a node at the caption's end in place of
 * the time (a distance, a count). `first`: its picture is loaded before those that wait. Ends its requests when `signal` aborts.
 */
export function tile(summary, { signal, size = 320, aside, first = false } = {}) {
  const place = picture(summary.image_id, { first, query: { size, feed: summary.feed }, signal, alt: altOf(summary) });
  const labels = h("span", { class: "tile-labels", "aria-hidden": "true" });
  const when = aside ?? h("time", { class: "tile-time", datetime: summary.event_time, title: time(summary.event_time) }, ago(summary.event_time));
  const element = h("a", { class: `tile ${summary.verdict ?? ""}`, href: hrefOf("image", summary.image_id, { feed: summary.feed }), data: { id: summary.image_id } },
    h("span", { class: "tile-picture" }, place, labels),
    h("span", { class: "tile-caption" }, badge(summary.verdict, { by: "" }), h("span", { class: "tile-end" }, when),
      h("span", { class: "tile-feed cut" }, why(summary) || summary.feed)));
  showBoxesWhenPointedAt(element, place, labels, summary, signal);
  return element;
}

/** What a picture without sight is: its objects if they are known. */
export function altOf(summary) {
  const labels = summary.labels ?? [];
  return labels.length ? `Picture with ${labels.slice(0, 5).map((label) => labelWords(label).slice(0, 60)).join(", ")}` : "Picture";
}

function why(summary) {
  const rules = (summary.rules ?? []).map((rule) => rule.rule ?? rule);
  return rules.length && summary.verdict !== "allow" ? `${summary.feed} · ${rules.join(", ")}` : "";
}

/** Brings the times of the tiles in `wall` up to date. */
export function refreshTimes(wall) {
  for (const one of wall.querySelectorAll(".tile-time")) {
    const text = ago(one.dateTime);
    if (one.textContent !== text) one.textContent = text;
  }
}

function showBoxesWhenPointedAt(element, place, labels, { image_id: id, feed }, signal) {
  let timer = null;
  let drawn = false;
  const start = () => {
    if (!drawn) timer = setTimeout(draw, POINTED_AT_MS);
  };
  const stop = () => clearTimeout(timer);
  element.addEventListener("pointerenter", start);
  element.addEventListener("focus", start);
  element.addEventListener("pointerleave", stop);
  element.addEventListener("blur", stop);

  async function draw() {
    drawn = true;
    try {
      const { findings } = await get(address`v1/images/${id}`, { feed }, { signal });
      const drawing = overlay(findings, { fit: "slice", strongest: 40 });
      if (drawing) place.after(drawing);
      const names = [...new Set((findings?.objects ?? []).map((one) => labelWords(one.label)))];
      labels.textContent = names.slice(0, 6).join(", ");
    } catch {
      drawn = false; // Not stored yet, most often: the verdict is out before the findings. Pointing again asks again.
    }
  }
}
