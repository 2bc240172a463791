/** What narrows a search: feed, verdict, label, time, and how far away a picture may be. */

import { choice, field, input } from "../components/controls.js";
import { h } from "../dom.js";
import { feedChoice } from "./feed_choice.js";
import { period } from "./period.js";

/** Cosine distances go to 2, but beyond 1 nothing is alike. */
const FARTHEST = 1;

/**
 * searchFilters({query, signal, onchange}) → {element, values(), address(), showDistance(on)}
 *
 * `query` is the URLSearchParams that the filters begin with. values() is what the API takes,
 * address() what the address keeps.
 */
export function searchFilters({ query, signal, onchange }) {
  let verdict = query.get("verdict") ?? "";
  const feed = feedChoice({ value: query.get("feed") ?? "", signal, onchange });
  const label = input({ value: query.get("label") ?? "", placeholder: "any", spellcheck: "false", onchange });
  const time = period({ span: query.get("span") ?? "", since: query.get("since"), until: query.get("until"), onchange });
  const said = h("output", { class: "figures" });
  const asked = Number(query.get("distance") ?? FARTHEST);
  const distance = h("input", { type: "range", min: 0.05, max: FARTHEST, step: 0.05, value: Number.isFinite(asked) ? asked : FARTHEST, oninput: say, onchange });
  const distanceField = h("label", { class: "field range" }, h("span", {}, "Distance ", said), distance);
  say();

  function say() {
    said.textContent = Number(distance.value) >= FARTHEST ? "any" : `up to ${Number(distance.value).toFixed(2)}`;
  }

  const wide = matchMedia("(min-width: 761px)");
  const set = () => [feed.value, verdict, label.value, farthest(), query.get("span"), query.get("since"), query.get("until")].some(Boolean);
  const folded = h("details", { class: "search-folded" }, h("summary", {}, "Filters"),
    h("div", { class: "search-filters" },
      field("Feed", feed),
      h("div", { class: "field" }, h("span", { "aria-hidden": "true" }, "Verdict"),
        choice({ label: "Verdict", value: verdict, options: [["", "Any"], ["allow", "Allow"], ["review", "Review"], ["block", "Block"]], onchange: (value) => { verdict = value; onchange(); } })),
      field("Label", label), time.element, distanceField));
  // On a phone what is found needs the room; elsewhere there is nothing to unfold.
  const unfold = () => { folded.open = wide.matches || set(); };
  wide.addEventListener("change", unfold, { signal });

  const farthest = () => (distanceField.hidden || Number(distance.value) >= FARTHEST ? null : Number(distance.value));

  unfold();
  return {
    element: folded,
    values() {
      const { since, until } = time.value();
      const farthestNow = farthest();
      return compacted({
        feed: feed.value, verdict, labels: label.value.trim() ? [label.value.trim()] : null, since, until,
        min_score: farthestNow === null ? null : Number((1 - farthestNow).toFixed(2)),
      });
    },
    address() {
      const { span, since, until } = time.value();
      return { feed: feed.value, verdict, label: label.value.trim(), span: span === "own" ? null : span,
        since: span === "own" ? since : null, until: span === "own" ? until : null, distance: farthest() };
    },
    /** Not everything that is found has one. */
    showDistance(on) {
      distanceField.hidden = !on;
    },
  };
}

/** Without what is empty: the API refuses null where it expects a value. */
export function compacted(values) {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== ""));
}
