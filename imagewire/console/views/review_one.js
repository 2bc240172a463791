/**
 * The queue image by image: the picture large, why it waits beside it, and a decision under a single
 * key. The next image is claimed for this reviewer, so that two never look at the same one; what was
 * just decided is passed over until the store has heard of it.
 */

import { address, get } from "../api.js";
import { LAYERS, overlay } from "../components/boxes.js";
import { button, press } from "../components/controls.js";
import { meter } from "../components/chart.js";
import { long } from "../components/long.js";
import { addShortcuts } from "../components/shortcuts.js";
import { empty, failed, loading } from "../components/states.js";
import { facts } from "../components/table.js";
import { toast } from "../components/toast.js";
import { badge, tag, verdictWord } from "../components/verdict.js";
import { fill, h } from "../dom.js";
import { ago, labelWords, score } from "../format.js";
import { showIn } from "../pictures.js";
import { hrefOf } from "../route.js";
import { by, sitting } from "./review_decisions.js";
import { decisionFields } from "./review_fields.js";

const SIZE = 960;
const LOOK_AGAIN_MS = 700;
const LOOKS = 6;
const LONGEST_LISTS = 12;
/** Decisions that may still be under way. */
const LATELY = 20;

/** Shows the queue in `place` until `signal` aborts. `filters()` gives feed and why; `onwaiting(counts)`. */
export function reviewOne(place, { filters, onwaiting, signal }) {
  const skipped = new Set();
  const fields = decisionFields();
  const stage = h("div", { class: "review-stage" });
  const why = h("div", { class: "stack" });
  let image = null;
  let boxes = true;
  let unblurred = false;
  let showing = new AbortController();

  const boxesButton = button({ text: "Boxes", icon: "box", small: true, pressed: true, key: "o", onclick: toggleBoxes });
  const blurButton = button({ text: "Unblurred", icon: "eye", small: true, pressed: false, key: "h", title: "Show what privacy hides (h)", onclick: toggleBlur });
  const actions = [
    button({ text: "Allow", icon: "check", kind: "allow", key: "a", onclick: () => decide("allow") }),
    button({ text: "Block", icon: "stop", kind: "danger", key: "b", onclick: () => decide("block") }),
    button({ text: "Later", icon: "right", kind: "plain", key: "s", title: "Leave it for later (s)", onclick: later }),
  ];
  // On a phone the picture needs the room.
  const more = h("details", { class: "decision-more", open: matchMedia("(min-width: 761px)").matches }, h("summary", {}, "Reason and labels"), fields.element);
  // What is there to be decided now, for who does not see it change.
  const said = h("p", { class: "unseen", role: "status" });
  const undoButton = button({ text: "Undo", icon: "undo", kind: "plain", key: "u", onclick: undoLast });

  const layout = h("div", { class: "review-one" }, said,
    h("section", { class: "card review-picture", "aria-label": "Picture" }, stage, h("div", { class: "review-tools row" }, boxesButton, blurButton)),
    h("section", { class: "card review-why", "aria-label": "Why it waits" }, h("div", { class: "card-body" }, why)),
    h("section", { class: "card review-decide", "aria-label": "Decision" }, h("div", { class: "card-body stack" },
      h("div", { class: "row review-actions" }, actions, h("span", { class: "push" }), undoButton), more)));

  async function next() {
    image = null;
    showing.abort();
    showing = new AbortController();
    allowActions(false);
    try {
      const found = await waitingImage();
      if (signal.aborted) return;
      onwaiting(found.waiting);
      if (!found.image) return void nothing();
      image = found.image;
      unblurred = false;
      press(blurButton, false);
      if (!layout.isConnected) fill(place, layout);
      showImage();
      said.textContent = inWords(image);
      allowActions(true);
    } catch (problem) {
      if (!signal.aborted) fill(place, h("section", { class: "card" }, failed(problem, { again: start })));
    }
  }

  /** The image to decide next: not one that was decided or put off here. */
  async function waitingImage() {
    let found = null;
    for (let look = 0; look < LOOKS; look += 1) {
      found = await get("v1/review/next", { ...filters(), ...by(), skip: [...skipped, ...sitting.ids.slice(0, LATELY)].slice(-100) }, { signal });
      if (!found.image || !(sitting.has(found.image.image_id) || skipped.has(found.image.image_id))) return found;
      await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
    }
    return { ...found, image: null };
  }

  function nothing() {
    // Its controls go away; whoever was at one of them goes on at what takes their place.
    const focused = layout.contains(document.activeElement);
    const undo = sitting.decided.length > 0 && button({ text: "Undo the last", icon: "undo", kind: "plain", onclick: undoLast });
    fill(place, h("section", { class: "card" }, skipped.size
      ? empty({ icon: "review", title: "Only what you put off is left", detail: `You left ${skipped.size} for later.`,
        actions: [button({ text: "Look at them now", kind: "primary", onclick: () => { skipped.clear(); start(); } }), undo] })
      : empty({ icon: "check", title: "Nothing waits", detail: "Every image that asked for a person has a decision, or is with somebody else.",
        actions: [button({ text: "Look again", icon: "refresh", onclick: start }), undo] })));
    if (focused) place.querySelector("button").focus();
  }

  function showImage() {
    showPicture();
    fill(why, reasonsOf(image));
    fields.clear();
  }

  async function showPicture() {
    const shown = image;
    const ends = AbortSignal.any([signal, showing.signal]);
    const inside = h("span", { class: "picture" }, loading(1, "Loading the picture"));
    fill(stage, inside);
    showIn(inside, shown.image_id, { query: { size: SIZE, feed: shown.feed, unblurred: unblurred || null }, signal: ends, alt: altOf(shown) });
    try {
      const { findings } = await get(address`v1/images/${shown.image_id}`, { feed: shown.feed }, { signal: ends });
      const drawing = overlay(findings, { show: LAYERS, fit: "meet" });
      if (drawing && image === shown) {
        drawing.classList.toggle("off", !boxes);
        stage.append(drawing);
      }
    } catch {
      // The boxes are an aid; without them the picture and its findings in words are still there.
    }
  }

  function toggleBoxes() {
    boxes = !boxes;
    press(boxesButton, boxes);
    stage.querySelector(".overlay")?.classList.toggle("off", !boxes);
  }

  function toggleBlur() {
    if (!image) return;
    unblurred = !unblurred;
    press(blurButton, unblurred);
    showPicture();
  }

  function allowActions(on) {
    // Not `disabled`: whoever decides with Enter on a button would lose the focus each time.
    for (const one of actions) one.setAttribute("aria-disabled", String(!on));
  }

  function decide(decision) {
    if (!image) return;
    const decided = image;
    sitting.decide([decided], decision, fields.value()).then((unknown) => {
      if (unknown.length) toast(`${decided.image_id} is not there any more`);
    }).catch((problem) => toast(problem));
    next();
  }

  function later() {
    if (!image) return;
    skipped.add(image.image_id);
    next();
  }

  async function undoLast() {
    const [last] = sitting.decided.filter((one) => !one.undoing);
    if (!last) return void toast("There is nothing to take back");
    try {
      await sitting.undo([last]);
      toast(`Taken back: ${verdictWord(last.decision)} of ${last.image.image_id}`, { tone: "done" });
      if (!image && !signal.aborted) start();
    } catch (problem) {
      toast(problem);
    }
  }

  function showUndo() {
    undoButton.hidden = !sitting.decided.length;
  }

  function start() {
    fill(place, layout);
    fill(stage, h("span", { class: "picture" }, loading(1, "Loading the next image")));
    fill(why, loading(6, "Loading the next image"));
    return next();
  }

  sitting.onchange(showUndo, signal);
  showUndo();
  signal.addEventListener("abort", () => showing.abort(), { once: true });
  addShortcuts("Review", [
    { key: "a", text: "Allow", run: () => decide("allow") },
    { key: "b", text: "Block", run: () => decide("block") },
    { key: "s", text: "Leave for later", run: later },
    { key: "u", text: "Take the last decision back", run: undoLast },
    { key: "r", text: "Write a reason", run: () => { more.open = true; fields.focus(); } },
    ...fields.reasons.map((reason, index) => ({ key: String(index + 1), text: `Reason: ${reason}`, run: () => fields.toggle(reason) })),
    { key: "o", text: "Boxes", run: toggleBoxes },
    { key: "h", text: "Show what privacy hides", run: toggleBlur },
  ], signal);
  return start();
}

function altOf(image) {
  const labels = [...new Set((image.objects ?? []).map((one) => one.label))];
  return labels.length ? `Picture with ${labels.slice(0, 6).map((label) => labelWords(label).slice(0, 60)).join(", ")}` : "Picture";
}

function inWords(image) {
  const why = image.why === "audit" ? ["drawn to check"] : (image.fired ?? []).map((one) => one.rule);
  return [`To be decided: ${altOf(image)}`, ...why.slice(0, 4)].join(", ");
}

/** Why an image waits and what was found in it. */
function reasonsOf(image) {
  const fired = image.fired ?? [];
  const objects = [...(image.objects ?? [])].sort((a, b) => b.score - a.score);
  const scores = Object.entries(image.scores ?? {}).sort((a, b) => b[1] - a[1]);
  const texts = image.texts ?? [];
  return [
    h("div", { class: "row" }, badge(image.verdict, { large: true }),
      image.why === "audit" ? tag("drawn to check") : tag("by the policy"),
      h("a", { class: "push small", href: hrefOf("image", image.image_id, { feed: image.feed }) }, "Everything about it")),
    fired.length > 0 && h("ul", { class: "fired" }, fired.map((one) => h("li", {},
      h("div", { class: "row" }, h("strong", {}, one.rule), badge(one.action), one.shadow && tag("shadow")),
      one.explanation && h("p", {}, long(one.explanation))))),
    image.why === "audit" && (image.audited_rules ?? []).length > 0 && h("p", {}, "To check: ", image.audited_rules.join(", ")),
    scores.length > 0 && section("Scores", scores.slice(0, LONGEST_LISTS).map(([name, value]) => measured(name, value))),
    objects.length > 0 && section("Objects", objects.slice(0, LONGEST_LISTS).map((one) => measured(labelWords(one.label), one.score)), objects.length - LONGEST_LISTS),
    texts.length > 0 && section("Text", texts.slice(0, LONGEST_LISTS).map((line) => h("li", { dir: "auto" }, long(line))), texts.length - LONGEST_LISTS),
    facts([["Image", h("code", {}, image.image_id)], ["Feed", image.feed], ["Waiting since", ago(image.waiting_since)],
      ["Size", image.width ? `${image.width} × ${image.height} ${image.format ?? ""}` : null], ["Policy", h("code", {}, image.policy)],
      ...Object.entries(image.metadata ?? {}).slice(0, 8).map(([name, value]) => [name, long(typeof value === "string" ? value : JSON.stringify(value))])]),
  ];
}

function section(title, items, left = 0) {
  return h("section", {}, h("h2", { class: "small soft" }, title), h("ul", { class: "measured" }, items), left > 0 && h("p", { class: "small soft" }, `and ${left} more`));
}

function measured(name, value) {
  return h("li", { class: "measure" }, h("span", { class: "cut", title: name }, name), meter(value), h("span", { class: "figures" }, score(value)));
}
