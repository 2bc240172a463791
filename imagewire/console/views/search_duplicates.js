/** Near-duplicates in a span of time: groups of pictures that are nearly the same. */

import { post } from "../api.js";
import { button, field } from "../components/controls.js";
import { empty, failed, loading, notice } from "../components/states.js";
import { tile } from "../components/tiles.js";
import { append, fill, h } from "../dom.js";
import { counted } from "../format.js";
import { feedChoice } from "./feed_choice.js";
import { period } from "./period.js";
import { compacted } from "./search_filters.js";

const GROUPS_AT_ONCE = 20;
const TILES_OF_A_GROUP = 12;
/** Every picture of a span is compared with every other. */
const LONGEST_MS = 300_000;
/** The API's own: with the default embedder edited copies are mostly above it, other pictures below. */
const ALIKE = 0.8;

/** duplicatesSearch({query, signal, setQuery}) → nodes for the view's body */
export function duplicatesSearch({ query, signal, setQuery }) {
  const feed = feedChoice({ value: query.get("feed") ?? "", signal });
  const time = period({ span: query.get("span") || "1d", since: query.get("since"), until: query.get("until"), any: null });
  const said = h("output", { class: "figures" });
  const asked = Number(query.get("alike") ?? ALIKE);
  const alike = h("input", { type: "range", min: 0.6, max: 0.99, step: 0.01, value: asked >= 0.6 && asked <= 0.99 ? asked : ALIKE, oninput: say });
  const status = h("p", { class: "soft figures", role: "status" });
  const results = h("section", { class: "stack loose", "aria-label": "Groups of near-duplicates" },
    empty({ icon: "copy", title: "Find near-duplicates", detail: "Pictures that were cropped, scaled, compressed anew or lightly edited, brought together in groups." }));
  say();

  function say() {
    said.textContent = `${Number(alike.value).toFixed(2)} and more`;
  }

  async function find(event) {
    event.preventDefault();
    const { span, since, until } = time.value();
    setQuery({ feed: feed.value, alike: Number(alike.value) === ALIKE ? null : alike.value, span: span === "own" ? null : span,
      since: span === "own" ? since : null, until: span === "own" ? until : null });
    const now = new Date().toISOString();
    status.textContent = "";
    fill(results, loading(5, "Comparing pictures"));
    try {
      const body = compacted({ since: since ?? new Date(0).toISOString(), until: until ?? now, feed: feed.value, threshold: Number(alike.value) });
      const found = await post("v1/duplicates", body, { signal, within: LONGEST_MS });
      showFound(found);
    } catch (problem) {
      if (!signal.aborted) fill(results, failed(problem));
    }
  }

  function showFound({ groups, looked_at: lookedAt, complete }) {
    const pictures = groups.reduce((sum, group) => sum + group.images.length, 0);
    status.textContent = [groups.length ? `${counted(groups.length, "group")} of ${counted(pictures, "picture")}` : "",
      Number.isFinite(lookedAt) ? `${counted(lookedAt, "picture")} compared` : ""].filter(Boolean).join("; ");
    const list = h("div", { class: "stack" });
    const more = button({ text: "Show more groups", onclick: showMore });
    let shown = 0;
    function showMore() {
      append(list, groups.slice(shown, shown + GROUPS_AT_ONCE).map((group) => groupCard(group, signal)));
      shown = Math.min(shown + GROUPS_AT_ONCE, groups.length);
      more.hidden = shown >= groups.length;
    }
    if (groups.length) showMore();
    fill(results,
      complete === false && notice("This span holds more pictures than are compared at once, so groups may be missing. Choose a shorter one, or one feed.", "review"),
      groups.length ? [list, h("div", { class: "row" }, more)]
        : empty({ icon: "copy", title: "No near-duplicates", detail: "In this span no two pictures are as alike as that." }));
  }

  return [
    h("section", { class: "card" }, h("form", { class: "card-body search-filters", onsubmit: find },
      field("Feed", feed), time.element,
      h("label", { class: "field range" }, h("span", {}, "Similarity ", said), alike),
      button({ text: "Find", icon: "search", kind: "primary", type: "submit" }))),
    status, results,
  ];
}

function groupCard({ images, similarity }, signal) {
  const wall = h("div", { class: "tiles small-tiles" });
  const more = button({ text: `Show all ${images.length}`, small: true, onclick: () => {
    append(wall, images.slice(TILES_OF_A_GROUP).map((one) => tile(one, { signal })));
    more.remove();
    wall.children[TILES_OF_A_GROUP].focus();
  } });
  append(wall, images.slice(0, TILES_OF_A_GROUP).map((one) => tile(one, { signal })));
  const feeds = [...new Set(images.map((one) => one.feed))];
  return h("section", { class: "card" },
    h("header", {}, h("h2", {}, counted(images.length, "picture")),
      h("span", { class: "small soft" }, feeds.slice(0, 3).join(", "), feeds.length > 3 && ` and ${feeds.length - 3} more feeds`),
      h("span", { class: "badge figures" }, `similarity ${similarity.toFixed(2)}`)),
    h("div", { class: "card-body stack" }, wall, images.length > TILES_OF_A_GROUP && more));
}
