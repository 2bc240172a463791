/**
 * Live: pictures as they are decided, and how the service keeps up. Verdicts come as server-sent
 * events; findings are stored a moment later and are asked for only where somebody looks.
 */

import { get } from "../api.js";
import { button, choice, field, input, press, select, setOptions } from "../components/controls.js";
import { addShortcuts } from "../components/shortcuts.js";
import { empty, failed, loading } from "../components/states.js";
import { VERDICTS, verdictWord } from "../components/verdict.js";
import { fill, h } from "../dom.js";
import { counted, rate } from "../format.js";
import { followImages } from "./live_arrivals.js";
import { trends } from "./live_trends.js";
import { Wall } from "./live_wall.js";

const FILTERS = ["feed", "verdict", "label"];
const REFRESH_MS = 1000;

export async function show(page, { query, signal, setQuery }) {
  const filters = Object.fromEntries(FILTERS.map((name) => [name, query.get(name) ?? ""]));
  const wall = new Wall({ signal, onchange: () => describe() });
  const place = h("section", { class: "live-wall", "aria-label": "Pictures, newest first" });
  const status = h("span", { class: "live-status", role: "status" });
  const sampling = h("span", { class: "soft small figures" });
  const pause = button({ text: "Pause", icon: "pause", pressed: false, key: "p", onclick: () => setPaused(!wall.paused) });
  const fresh = button({ text: "", icon: "up", kind: "primary", onclick: () => scrollTo({ top: 0, behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" }) });
  const above = h("div", { class: "live-above", hidden: true }, fresh);
  const bar = filterBar(filters, change, signal);
  let source = { state: "connecting" };
  let following = new AbortController();

  fill(page,
    h("div", { class: "page-head" }, h("h1", {}, "Live"), status, pause),
    trends(signal), bar.element, h("div", { class: "row live-count" }, sampling), place, above);
  addShortcuts("Live", [
    { key: "p", text: "Pause and go on", run: () => setPaused(!wall.paused) },
    { key: "a", text: "Every verdict", run: () => bar.setVerdict("") },
    { key: "1", text: "Only allow", run: () => bar.setVerdict("allow") },
    { key: "2", text: "Only review", run: () => bar.setVerdict("review") },
    { key: "3", text: "Only block", run: () => bar.setVerdict("block") },
    { key: "Arrows", text: "Values of a chart that has the focus" },
  ], signal);
  const timer = setInterval(() => { wall.step(); describe(); }, REFRESH_MS);
  signal.addEventListener("abort", () => { clearInterval(timer); following.abort(); }, { once: true });
  await begin();

  function change(changes) {
    Object.assign(filters, changes);
    setQuery(filters);
    begin();
  }

  /** Shows what is stored, then what arrives; anew whenever a filter changes. */
  async function begin() {
    following.abort();
    following = new AbortController();
    const now = AbortSignal.any([signal, following.signal]);
    const size = wall.begin(filters);
    fill(place, loading(1, "Loading pictures"), wall.placeholders());
    source = { state: "connecting" };
    describe();
    try {
      const { images } = await get("v1/images", { ...filters, limit: size }, { signal: now });
      if (now.aborted) return;
      fill(place, wall.element);
      wall.fillWith(images);
      bar.learn(images);
    } catch (problem) {
      if (now.aborted) return;
      fill(place, failed(problem, { again: begin }));
      source = { state: "ended", problem };
      return void describe();
    }
    followImages({ filters, signal: now, onImage: (summary) => wall.offer(summary), onLabels: bar.learn,
      onState: (state) => { source = state; describe(); } });
  }

  function setPaused(paused) {
    wall.paused = paused;
    press(pause, paused);
    wall.step();
    describe();
  }

  function describe() {
    const [tone, words] = inWords(source, wall);
    if (status.textContent !== words) fill(status, h("span", { class: `live-dot ${tone}`, "aria-hidden": "true" }), words);
    fill(sampling, pace(wall));
    above.hidden = !(wall.heldBy === "scrolling" && wall.waiting > 0);
    fresh.lastChild.textContent = `${counted(wall.waiting, "new picture")}`;
    if (!wall.started) return;
    const nothing = place.querySelector(".state");
    if (wall.size === 0 && !nothing) place.append(nothingYet(filters, () => { bar.clear(); }));
    else if (wall.size > 0) nothing?.remove();
  }
}

function inWords(source, wall) {
  if (source.state === "ended") return ["bad", "Not following"];
  if (source.state === "waiting") return ["bad", `Connection lost, trying again in ${source.seconds} s`];
  if (source.state === "connecting") return ["", "Connecting"];
  if (wall.paused) return ["held", "Paused"];
  if (wall.heldBy === "pointing") return ["held", "Held while you look"];
  if (wall.heldBy === "scrolling") return ["held", "Held while you are further down"];
  return ["good", "Following"];
}

/** Whether all pictures are on the wall or some of them: a wall that hides this would mislead. */
function pace(wall) {
  if (wall.waiting) return `${counted(wall.waiting, "picture")} waiting`;
  const { settled, sampled, arrived, shown } = wall.pace();
  if (!arrived || !settled) return wall.size ? `${counted(wall.size, "picture")} on the wall` : "";
  if (!sampled) return `${rate(arrived)} images/s, ${counted(wall.size, "picture")} on the wall`;
  return `${rate(arrived)} images/s arrive, a sample of ${rate(shown)} is shown; reviews and blocks go first`;
}

function nothingYet(filters, clear) {
  const filtered = FILTERS.some((name) => filters[name]);
  return filtered
    ? empty({ icon: "filter", title: "Nothing matches", detail: "No image of these filters is stored. What arrives and matches appears here.",
      actions: [button({ text: "Clear filters", onclick: clear })] })
    : empty({ icon: "image", title: "No images yet",
      detail: ["Publish some and they appear here as they are decided: ", h("code", {}, "imagewire publish photos --feed uploads")] });
}

function filterBar(filters, change, signal) {
  const labels = new Set();
  const feed = select({ options: [["", "All feeds"]], value: filters.feed, onchange: () => change({ feed: feed.value }) });
  const label = input({ value: filters.label, placeholder: "Any object", list: [], type: "search", onchange: () => change({ label: label.value.trim() }) });
  const verdict = choice({ label: "Verdict", value: filters.verdict, onchange: (value) => change({ verdict: value }),
    options: [["", "All"], ...VERDICTS.map((one) => [one, verdictWord(one)])] });
  get("v1/feeds", {}, { signal }).then(({ feeds }) =>
    setOptions(feed, [["", "All feeds"], ...feeds.map((one) => [one.feed, one.feed])], filters.feed), () => {
    // The wall tells of an API that does not answer; the filter keeps what it has.
  });
  const element = h("div", { class: "filters" }, field("Feed", feed),
    h("div", { class: "field" }, h("span", { "aria-hidden": "true" }, "Verdict"), verdict), field("Object", label), label.suggestions);
  return {
    element,
    setVerdict(value) {
      verdict.querySelector(`input[value="${value}"]`).checked = true;
      change({ verdict: value });
    },
    clear() {
      feed.value = label.value = "";
      verdict.querySelector("input").checked = true;
      feed.focus();
      change({ feed: "", verdict: "", label: "" });
    },
    learn(images) {
      for (const name of images.flatMap((image) => image.labels ?? [])) {
        if (labels.has(name) || labels.size >= 200) continue;
        labels.add(name);
        label.suggestions.append(h("option", { value: name }));
      }
    },
  };
}
