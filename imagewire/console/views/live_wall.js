/**
 * The wall. It shows everything while that is little, and a sample when more arrives than can be
 * loaded and seen: the number of tiles and of requests under way has a ceiling, whatever the rate.
 * Newest first; it stands still while somebody points at a picture or is further down the page,
 * because what is looked at must not run away.
 */

import { refreshTimes, tile } from "../components/tiles.js";
import { skeleton } from "../components/states.js";
import { h } from "../dom.js";
import { picturesUnderWay } from "../pictures.js";
import { Pace } from "./live_pace.js";

const TILES = 60;
const TILES_ON_A_PHONE = 30;
/** Pictures that may be under way before new ones are left out. */
const UNDER_WAY = 9;
/** Arrivals kept for the next step. */
const WAITING = 24;
const STRICTNESS = { block: 2, review: 1 };

export class Wall {
  constructor({ signal, onchange }) {
    this.signal = signal;
    this.element = h("div", { class: "tiles", onpointerover: (event) => this.#point(event), onpointerleave: (event) => this.#point(event) });
    this.paused = false;
    this.heldBy = "";
    this.onchange = onchange;
    this.begin({});
  }

  #pointed = false;
  #tiles = new Map();
  #waiting = [];
  #pace = new Pace();
  #missed = 0;
  #flooded = false;

  /** Forgets everything; returns how many pictures it wants to begin with. */
  begin(filters) {
    for (const { abort } of this.#tiles.values()) abort.abort();
    this.#tiles.clear();
    this.element.replaceChildren();
    this.#waiting = [];
    this.#pace = new Pace();
    this.#missed = 0;
    this.#flooded = false;
    this.started = false;
    this.filters = { ...filters };
    this.capacity = matchMedia("(max-width: 760px)").matches ? TILES_ON_A_PHONE : TILES;
    return this.capacity;
  }

  placeholders() {
    return h("div", { class: "tiles", "aria-hidden": "true" }, Array.from({ length: 12 }, () =>
      h("div", { class: "tile" }, h("span", { class: "tile-picture" }, skeleton({ height: "100%" })),
        h("span", { class: "tile-caption" }, skeleton({ width: "60px" }), skeleton({ width: "50px" })))));
  }

  fillWith(summaries) {
    this.started = true;
    for (const summary of summaries.slice(0, this.capacity)) {
      if (!this.#tiles.has(keyOf(summary))) this.element.append(this.#make(summary));
    }
  }

  get size() {
    return this.#tiles.size;
  }

  /** Pictures that came while the wall stood still. */
  get waiting() {
    return this.#missed;
  }

  /** Looks what it is held by: `heldBy` is "pointing", "scrolling" or empty. */
  #look() {
    const pointed = this.#pointed || this.element.querySelector(".tile:focus-visible");
    this.heldBy = pointed ? "pointing" : this.element.getBoundingClientRect().top < -120 ? "scrolling" : "";
  }

  /** An image was decided. */
  offer(summary) {
    this.#pace.count("arrived");
    const key = keyOf(summary);
    const known = this.#tiles.get(key);
    if (known) return this.#decideAnew(known, summary);
    if (this.paused || this.heldBy) this.#missed += 1;
    const again = this.#waiting.findIndex((one) => keyOf(one) === key);
    if (again >= 0) this.#waiting.splice(again, 1);
    this.#waiting.push(summary);
    if (this.#waiting.length <= WAITING) return;
    this.#waiting.splice(leastWanted(this.#waiting), 1);
    this.#pace.count("leftOut");
    this.#flooded = true;
  }

  /** Called every second: puts up what there is room for. */
  step() {
    if (!this.started || document.hidden) return;
    this.#look();
    refreshTimes(this.element);
    if (this.paused || this.heldBy) return;
    this.#missed = 0;
    // One at least: a verdict is worth showing while its picture is still being waited for.
    const room = Math.max(Math.min(this.#columns() * 2, UNDER_WAY - picturesUnderWay()), 1);
    const chosen = this.#flooded ? this.#sample(room) : this.#waiting.splice(0, room);
    this.#flooded = false;
    for (const summary of chosen) {
      const element = this.#make(summary, true);
      element.classList.add("fresh");
      this.element.prepend(element);
      this.#pace.count("shown");
    }
    while (this.#tiles.size > this.capacity) this.#drop(this.element.lastElementChild);
  }

  /** As of Pace. */
  pace() {
    return this.#pace.now();
  }

  /** Summaries of images that are not on the wall yet; never many. */
  get kept() {
    return this.#waiting.length;
  }

  #columns() {
    return Math.max(getComputedStyle(this.element).gridTemplateColumns.split(" ").length, 1);
  }

  #make(summary, first = false) {
    const abort = new AbortController();
    const element = tile(summary, { first, signal: AbortSignal.any([this.signal, abort.signal]) });
    element.dataset.key = keyOf(summary);
    this.#tiles.set(element.dataset.key, { element, abort, summary });
    return element;
  }

  #drop(element) {
    this.#tiles.get(element.dataset.key)?.abort.abort();
    this.#tiles.delete(element.dataset.key);
    element.remove();
  }

  /** A person decided otherwise, or a record came twice: the tile stays where it is. */
  #decideAnew(known, summary) {
    if (known.summary.verdict === summary.verdict) return;
    const { element, abort } = known;
    abort.abort();
    const anew = this.#make({ ...known.summary, ...summary });
    const focused = element === document.activeElement;
    element.replaceWith(anew);
    if (focused) anew.focus();
  }

  /** Up to `count` of those that wait, the newest, but stricter verdicts first as up to half of them. */
  #sample(count) {
    const strict = this.#waiting.filter((one) => STRICTNESS[one.verdict]).slice(-Math.ceil(count / 2));
    const places = count - strict.length;
    const rest = places ? this.#waiting.filter((one) => !strict.includes(one)).slice(-places) : [];
    const chosen = this.#waiting.filter((one) => strict.includes(one) || rest.includes(one));
    this.#waiting = [];
    return chosen;
  }

  #point(event) {
    const pointed = event.type === "pointerover" && event.pointerType !== "touch" && event.target.closest(".tile") !== null;
    if (pointed === this.#pointed) return;
    this.#pointed = pointed;
    this.#look();
    this.onchange();
  }
}

/** Two feeds may use one id. */
const keyOf = ({ feed, image_id: id }) => JSON.stringify([feed, id]);

/** Where in `waiting` the one stands that can best be left out: the oldest of the mildest verdict. */
function leastWanted(waiting) {
  const strictness = waiting.map((one) => STRICTNESS[one.verdict] ?? 0);
  return strictness.indexOf(Math.min(...strictness));
}
