/**
 * The queue as a wall: choose pictures with the pointer or the arrow keys, and decide over all that are
 * chosen at once. Those that somebody looks at one by one say so.
 */

import { get } from "../api.js";
import { button, select, setOptions } from "../components/controls.js";
import { addShortcuts } from "../components/shortcuts.js";
import { empty, failed, loading } from "../components/states.js";
import { toast } from "../components/toast.js";
import { badge, verdictWord } from "../components/verdict.js";
import { append, fill, h } from "../dom.js";
import { ago, counted, whole } from "../format.js";
import { picture } from "../pictures.js";
import { hrefOf } from "../route.js";
import { sitting } from "./review_decisions.js";
import { decisionFields } from "./review_fields.js";

const PAGE = 48;
const TILE = 320;

/** Shows the wall in `place` until `signal` aborts. `filters()` gives feed and why; `onwaiting(counts)`. */
export function reviewBatch(place, { filters, onwaiting, signal }) {
  const tiles = new Map(); // image id → {image, element, box}
  const fields = decisionFields();
  const wall = h("ul", { class: "tiles review-wall" });
  const below = h("div", {});
  const status = h("strong", { class: "figures", role: "status" });
  const rule = select({ "aria-label": "Rule", class: "input slim", options: [["", "Any rule"]], onchange: hideOthers });
  let cursor = null;
  let anchor = null;

  const actions = [
    button({ text: "Allow", icon: "check", kind: "allow", key: "a", onclick: () => decide("allow") }),
    button({ text: "Block", icon: "stop", kind: "danger", key: "b", onclick: () => decide("block") }),
  ];
  const bar = h("section", { class: "card batch-bar", "aria-label": "Decision over what is chosen" }, h("div", { class: "card-body stack" },
    h("div", { class: "row" }, status, actions, button({ text: "None", kind: "plain", onclick: () => chooseAll(false) })),
    h("details", {}, h("summary", {}, "Reason and labels"), fields.element)));

  async function load(more = false) {
    if (!more) { tiles.clear(); fill(wall); fill(place, loading(6, "Loading the queue")); }
    try {
      const found = await get("v1/review/queue", { ...filters(), limit: PAGE, cursor: more ? cursor : null }, { signal });
      if (signal.aborted) return;
      onwaiting(found.waiting);
      cursor = found.next;
      const fresh = found.images.filter((one) => !tiles.has(one.image_id) && !sitting.has(one.image_id));
      append(wall, fresh.map(entry));
      draw();
      if (more) tiles.get(fresh[0]?.image_id)?.box.focus();
    } catch (problem) {
      if (signal.aborted) return;
      if (more) toast(problem);
      else fill(place, h("section", { class: "card" }, failed(problem, { again: () => load() })));
    }
  }

  function draw() {
    const names = [...new Set([...tiles.values()].flatMap(({ image }) => (image.fired ?? []).map((one) => one.rule)))].sort();
    setOptions(rule, [["", "Any rule"], ...names.map((name) => [name, name])]);
    fill(below, cursor && button({ text: "Show more", onclick: () => load(true) }));
    if (!tiles.size) {
      return void fill(place, h("section", { class: "card" }, cursor ? empty({ icon: "review", title: "These are decided", actions: [button({ text: "Show more", kind: "primary", onclick: () => load() })] })
        : empty({ icon: "check", title: "Nothing waits", detail: "Every image that asked for a person has a decision, or is with somebody else.", actions: [button({ text: "Look again", icon: "refresh", onclick: () => load() })] })));
    }
    if (!wall.isConnected) {
      fill(place, h("div", { class: "stack" },
        h("div", { class: "row" }, rule, button({ text: "Choose all", small: true, key: "*", onclick: () => chooseAll(true) }),
          h("span", { class: "small soft batch-hint" }, "Arrow keys move, space chooses, shift extends")),
        wall, below, bar));
    }
    hideOthers();
  }

  function entry(image) {
    const box = h("input", { type: "checkbox", "aria-label": nameOf(image), onclick: (event) => { if (event.shiftKey) extendTo(image.image_id, box.checked); anchor = image.image_id; count(); } });
    const rules = (image.fired ?? []).filter((one) => !one.shadow).map((one) => one.rule);
    const element = h("li", { class: "pick" },
      h("label", { class: `tile ${image.verdict ?? ""}` },
        h("span", { class: "tile-picture" }, picture(image.image_id, { query: { size: TILE, feed: image.feed }, signal, alt: "" }), box),
        h("span", { class: "tile-caption" }, badge(image.verdict), h("span", { class: "tile-end" }, ago(image.waiting_since)),
          h("span", { class: "tile-feed cut", title: rules.join(", ") }, [image.claimed_by && `with ${image.claimed_by}`, image.feed, ...(image.why === "audit" ? ["audit"] : rules)].filter(Boolean).join(" · ")))),
      h("a", { class: "button small icon found-more", href: hrefOf("image", image.image_id, { feed: image.feed }), "aria-label": `Everything about ${image.image_id}`, title: "Everything about it" }, "…"));
    tiles.set(image.image_id, { image, element, box });
    return element;
  }

  const visible = () => [...tiles.values()].filter(({ element }) => !element.hidden);
  const chosen = () => visible().filter(({ box }) => box.checked);

  function hideOthers() {
    for (const { image, element } of tiles.values()) element.hidden = rule.value !== "" && !(image.fired ?? []).some((one) => one.rule === rule.value);
    count();
  }

  function count() {
    const number = chosen().length;
    for (const one of actions) one.disabled = number === 0;
    status.textContent = number ? `${whole(number)} chosen` : "Nothing chosen";
    bar.classList.toggle("idle", number === 0);
  }

  function chooseAll(on) {
    for (const { box } of visible()) box.checked = on;
    count();
  }

  function extendTo(id, on) {
    const row = visible();
    const places = [anchor, id].map((one) => row.findIndex(({ image }) => image.image_id === one));
    if (places.includes(-1)) return;
    for (let index = Math.min(...places); index <= Math.max(...places); index += 1) row[index].box.checked = on;
  }

  function move(event, step) {
    const row = visible();
    const now = row.findIndex(({ box }) => box === document.activeElement);
    const next = row[Math.min(Math.max(now + (now < 0 ? 1 : step), 0), row.length - 1)];
    if (!next) return;
    next.box.focus();
    if (event.shiftKey && now >= 0) {
      anchor ??= row[now].image.image_id;
      row[now].box.checked = true;
      next.box.checked = true;
    }
    count();
  }

  /** Pictures in a row of the wall as it is laid out now. */
  function rowLength() {
    const row = visible();
    const top = row[0]?.element.offsetTop;
    const second = row.findIndex(({ element }) => element.offsetTop !== top);
    return second < 0 ? row.length : second;
  }

  async function decide(decision) {
    const images = chosen().map(({ image }) => image);
    if (!images.length) return;
    const before = visible().findIndex(({ box }) => box.checked);
    for (const image of images) remove(image.image_id);
    draw();
    (visible()[Math.min(before, visible().length - 1)]?.box ?? place.querySelector("button"))?.focus({ preventScroll: true });
    try {
      const unknown = await sitting.decide(images, decision, fields.value());
      fields.clear();
      const entries = sitting.decided.filter((one) => images.includes(one.image));
      toast(`${verdictWord(decision)}: ${counted(images.length - unknown.length, "image")}${unknown.length ? `; ${unknown.length} are not there any more` : ""}`,
        { tone: "done", action: { text: "Undo", run: () => undo(entries) }, stays: 12000 });
      if (!tiles.size && cursor) load();
    } catch (problem) {
      toast(problem);
      if (!signal.aborted) load();
    }
  }

  async function undo(entries) {
    if (!entries.length) return void toast("There is nothing to take back");
    try {
      await sitting.undo(entries);
      toast(`Taken back: ${counted(entries.length, "decision")}`, { tone: "done" });
      if (!signal.aborted) load();
    } catch (problem) {
      toast(problem);
    }
  }

  function remove(id) {
    tiles.get(id)?.element.remove();
    tiles.delete(id);
  }

  addShortcuts("Review", [
    { key: "a", text: "Allow what is chosen", run: () => decide("allow") },
    { key: "b", text: "Block what is chosen", run: () => decide("block") },
    { key: "u", text: "Take the last decision back", run: () => undo(sitting.decided.slice(0, 1)) },
    { key: "*", text: "Choose all", run: () => chooseAll(true) },
    { key: "Escape", text: "Choose none", run: () => chooseAll(false) },
    { key: "Arrows", text: "To another picture" },
    { key: "Space", text: "Choose it, or not" },
    { key: "Shift Arrows", text: "Choose on the way" },
  ], signal);
  // Not among the shortcuts of the shell: outside the wall arrow keys belong to whatever has the focus.
  document.addEventListener("keydown", (event) => {
    const step = { ArrowRight: () => 1, ArrowLeft: () => -1, ArrowDown: rowLength, ArrowUp: () => -rowLength() }[event.key];
    const here = wall.contains(event.target) || event.target === document.body || event.target.id === "page";
    if (!step || !here || !tiles.size || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    move(event, step());
  }, { signal });
  return load();
}

function nameOf(image) {
  const rules = (image.fired ?? []).map((one) => one.rule);
  return [`Choose ${image.image_id}`, image.feed, ...rules].join(", ");
}
