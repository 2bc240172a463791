/**
 * Whether what comes in has changed: the last day against the week before, by the population stability
 * index. Small samples wander by themselves, so an index counts only above what chance explains.
 */

import { button } from "../components/controls.js";
import { empty } from "../components/states.js";
import { table } from "../components/table.js";
import { tag } from "../components/verdict.js";
import { fill, h } from "../dom.js";
import { score, whole } from "../format.js";

/** Bounds in common use: from 0.1 on worth a look, from 0.25 on another distribution. */
const MOVED = 0.1;
const CHANGED = 0.25;
const SHOWN = 12;

/** driftCard(rows of the view `drift`) → element */
export function driftCard(drift) {
  const rows = [...drift].map((row) => ({ ...row, state: stateOf(row) }))
    .sort((a, b) => b.state.rank - a.state.rank || (b.psi ?? 0) - (a.psi ?? 0));
  const inside = h("div", { class: "card-body flush" });
  draw(SHOWN);

  function draw(limit) {
    if (!rows.length) {
      return void fill(inside, empty({ icon: "live", title: "Nothing to compare yet", detail: "Drift compares the last day with the week before it, so it needs images of both.", slim: true }));
    }
    fill(inside, driftTable(rows.slice(0, limit)), rows.length > limit && h("div", { class: "card-body" },
      button({ text: `Show all ${rows.length}`, small: true, onclick: () => draw(rows.length) })));
  }

  return h("section", { class: "card" }, h("header", {}, h("h2", {}, "Drift"), rows.length > 0 && summary(rows)),
    h("p", { class: "card-about small soft" }, "The last day against the week before it. Up to 0.1 is stable, above 0.25 it is another distribution; what chance alone explains does not count."),
    inside);
}

function stateOf({ psi, by_chance: chance = 0 }) {
  if (!Number.isFinite(psi)) return { text: "unknown", tone: "", rank: 0 };
  if (psi <= Math.max(MOVED, chance)) return { text: psi > MOVED ? "within chance" : "stable", tone: "allow", rank: 1 };
  return psi > CHANGED ? { text: "changed", tone: "block", rank: 3 } : { text: "moved", tone: "review", rank: 2 };
}

function summary(rows) {
  const worst = rows[0].state;
  const count = rows.filter((row) => row.state.rank === worst.rank).length;
  return tag(worst.rank <= 1 ? "stable" : `${whole(count)} ${worst.text}`, worst.tone);
}

function driftTable(rows) {
  return table({ label: "Drift", rows, columns: [
    { title: "State", value: (row) => tag(row.state.text, row.state.tone) },
    { title: "What", value: (row) => (row.kind === "embedding" ? `embedding, projection ${String(row.name).split("/").at(-1)}` : row.name) },
    { title: "Feed", value: (row) => row.feed },
    { title: "Index", value: (row) => h("span", { class: "drift-index" }, gauge(row), h("span", { class: "figures" }, Number.isFinite(row.psi) ? row.psi.toFixed(3) : "–")) },
    { title: "Mean before", number: true, value: (row) => score(row.reference_mean) },
    { title: "Mean now", number: true, value: (row) => score(row.current_mean) },
    { title: "Images before", number: true, value: (row) => whole(row.reference_images) },
    { title: "Images now", number: true, value: (row) => whole(row.current_images) },
    { title: "Model", value: (row) => h("code", {}, row.model) }] });
}

/** The index on a line to twice the bound, with marks at both bounds. */
function gauge({ psi, state }) {
  const at = (value) => `${Math.min((value ?? 0) / (2 * CHANGED), 1) * 100}%`;
  return h("span", { class: "gauge", "aria-hidden": "true" },
    h("span", { class: `gauge-fill ${state.tone}`, style: { inlineSize: at(psi) } }),
    [MOVED, CHANGED].map((bound) => h("span", { class: "gauge-mark", style: { insetInlineStart: at(bound) } })));
}
