/**
 * Search: pictures that look like one (chosen, dropped, pasted, or stored already), pictures by words,
 * and groups of near-duplicates. What was asked stands in the address, except for a picture.
 */

import { get, jsonOf, post, request } from "../api.js";
import { button, choice, field, input } from "../components/controls.js";
import { icon } from "../components/icons.js";
import { addShortcuts } from "../components/shortcuts.js";
import { empty, failed, loading } from "../components/states.js";
import { tile } from "../components/tiles.js";
import { append, fill, h } from "../dom.js";
import { counted, milliseconds, whole } from "../format.js";
import { hrefOf } from "../route.js";
import { duplicatesSearch } from "./search_duplicates.js";
import { compacted, searchFilters } from "./search_filters.js";
import { pictureInput } from "./search_picture.js";

const PAGE = 48;
const MOST = 1000;
const MOST_READ = 200;
const MODES = [["picture", "Picture", "image"], ["id", "Image id", "link"], ["text", "Words", "text"], ["duplicates", "Duplicates", "copy"]];

export async function show(page, { query, signal, setQuery }) {
  let mode = startMode(query);
  let asking = null;
  const results = h("section", { class: "stack", "aria-label": "Results", "aria-live": "off" });
  const status = h("p", { class: "soft figures", role: "status" });
  const filters = searchFilters({ query, signal, onchange: () => { if (asked()) search(); else keepAddress(); } });
  const picture = pictureInput({ signal, onpicture: () => (mode === "picture" ? search() : pick("picture")) });
  const id = input({ value: query.get("image_id") ?? "", placeholder: "such as bus-1", spellcheck: "false", autocapitalize: "off" });
  const words = input({ type: "search", value: query.get("text") ?? "", maxlength: 500 });
  const asks = h("div", { class: "search-asks" });
  const body = h("div", { class: "stack loose" });

  function asked() {
    return { picture: () => picture.file(), id: () => id.value.trim(), text: () => words.value.trim() }[mode]?.() || null;
  }

  /** Words that were read have no distance. */
  const measured = () => mode !== "text";

  function keepAddress() {
    setQuery({ mode: mode === "picture" ? null : mode, image_id: mode === "id" ? id.value.trim() : null,
      text: mode === "text" ? words.value.trim() : null, ...filters.address() });
  }

  function pick(next) {
    mode = next;
    for (const radio of modes.querySelectorAll("input")) radio.checked = radio.value === mode;
    drawMode();
    if (asked()) search();
    else keepAddress();
  }

  function drawMode() {
    asking?.abort();
    filters.showDistance(measured());
    if (mode === "duplicates") return void fill(body, duplicatesSearch({ query, signal, setQuery }));
    const form = (control, label) => h("form", { class: "search-form", onsubmit: (event) => { event.preventDefault(); search(); } },
      field(label, control), button({ text: "Search", icon: "search", kind: "primary", type: "submit" }));
    fill(asks, { picture: () => picture.element, id: () => form(id, "Image id"), text: () => form(words, "Words read in pictures") }[mode]());
    fill(body, h("section", { class: "card" }, h("div", { class: "card-body stack" }, asks, filters.element)), h("div", { class: "stack" }, status, results));
    status.textContent = "";
    fill(results, invitation(mode));
  }

  async function search(limit = PAGE) {
    const by = asked();
    keepAddress();
    if (!by) return;
    asking?.abort();
    const mine = new AbortController();
    asking = mine;
    const more = limit > PAGE;
    results.setAttribute("aria-busy", "true");
    if (!more) fill(results, h("div", { class: "tiles" }, Array.from({ length: 8 }, () => h("div", { class: "tile" }, loading(4)))));
    try {
      const found = await ask(by, limit, AbortSignal.any([signal, mine.signal]));
      if (asking === mine) showFound(found, limit, more);
    } catch (problem) {
      if (signal.aborted || asking !== mine || problem.name === "AbortError") return;
      status.textContent = "";
      fill(results, failed(problem, { again: () => search() }));
    } finally {
      if (asking === mine) results.removeAttribute("aria-busy");
    }
  }

  async function ask(by, limit, until) {
    const narrowed = filters.values();
    if (mode === "picture") {
      const body = new FormData();
      body.append("picture", by, by.name || "pasted");
      for (const [name, value] of Object.entries({ ...narrowed, limit })) for (const one of [value].flat()) body.append(name, String(one));
      return jsonOf(await request("v1/search", { method: "POST", body, signal: until }));
    }
    if (mode === "id") return post("v1/search", { ...narrowed, image_id: by, limit }, { signal: until });
    return readWords(by, narrowed, limit, until);
  }

  function showFound({ results: found, took_ms: took }, limit, more) {
    status.textContent = found.length ? `${counted(found.length, "picture")}${took === undefined ? "" : ` in ${milliseconds(took)}`}` : "";
    if (!found.length) {
      return void fill(results, measured()
        ? empty({ icon: "search", title: "Nothing like it", detail: "No picture that is stored comes near enough. Widen the filters, or allow a greater distance." })
        : empty({ icon: "text", title: "Read nowhere", detail: "These words were read in no picture that is stored. Widen the filters, or write less." }));
    }
    const wall = more ? results.querySelector(".tiles") : h("ul", { class: "tiles found-tiles" });
    const had = wall.childElementCount;
    append(wall, found.slice(had).map((one) => foundTile(one, signal)));
    const most = measured() ? MOST : MOST_READ;
    const next = Math.min(limit * 2, most);
    fill(results,
      measured() && h("p", { class: "small soft" }, "Distance is 1 minus the cosine of the two embeddings. 0 is the same picture; with the default embedder copies are mostly below 0.3, and above 0.5 hardly anything is alike."),
      wall,
      found.length >= limit && limit < most && h("div", { class: "row" }, button({ text: `Show up to ${whole(next)}`, onclick: () => search(next) })));
    if (more) wall.children[had]?.querySelector("a")?.focus();
  }

  const modes = choice({ label: "Search by", value: mode, options: MODES, onchange: pick });
  fill(page, h("div", { class: "page-head" }, h("h1", {}, "Search"), modes), body);
  drawMode();
  addShortcuts("Search", [{ key: "/", text: "To what is searched by", run: () => (asks.querySelector("input") ?? body.querySelector("input, select"))?.focus() }], signal);
  if (asked()) await search();
}

function startMode(query) {
  const named = query.get("mode");
  if (MODES.some(([mode]) => mode === named)) return named;
  return query.get("image_id") ? "id" : query.get("text") ? "text" : "picture";
}

/** Pictures in which words were read. */
async function readWords(text, { labels, min_score: _none, ...narrowed }, limit, signal) {
  const { images } = await get("v1/images", compacted({ ...narrowed, label: labels?.[0], text, limit: Math.min(limit, MOST_READ) }), { signal });
  return { results: images };
}

function foundTile(found, signal) {
  const distance = Number.isFinite(found.score) ? Math.max(0, 1 - found.score) : null;
  return h("li", { class: "found-one" },
    tile(found, { signal, aside: distance === null ? undefined : h("span", { class: "figures", title: `Distance ${distance.toFixed(4)}, similarity ${found.score.toFixed(4)}` }, h("span", { class: "unseen" }, "distance "), distance.toFixed(3)) }),
    found.copies > 1 && h("span", { class: "copies", title: `${found.copies} images have the same bytes` }, `${whole(found.copies)} copies`),
    h("a", { class: "button small icon found-more", href: hrefOf("search", "", { image_id: found.image_id }), "aria-label": `Search by ${found.image_id}`, title: "Search by this picture" }, icon("search")));
}

function invitation(mode) {
  return empty({
    picture: { icon: "image", title: "Search by a picture", detail: "Imagewire looks for stored pictures that look like it: copies, crops, other sizes, and pictures of the same thing." },
    id: { icon: "link", title: "Search by a stored image", detail: "Give its id, as it stands on its page and in every record." },
    text: { icon: "text", title: "Search by words", detail: "Signs, captions, screenshots: whatever was read in a picture can be looked for." },
  }[mode]);
}
