/** The picture and what can be laid over it: boxes, lines of text, faces, a heat map. */

import { light, overlay, LAYERS } from "../components/boxes.js";
import { button, press, select } from "../components/controls.js";
import { addShortcuts } from "../components/shortcuts.js";
import { notice, skeleton } from "../components/states.js";
import { toast } from "../components/toast.js";
import { fill, h } from "../dom.js";
import { counted, labelWords } from "../format.js";
import { showIn } from "../pictures.js";
import { altOf } from "../components/tiles.js";

const SIZE = 1280;
const NAMED = 10;
/** Beyond so many times as long as wide a picture would be drawn as a line, so it is drawn wider than it is. */
const LONGEST_SHAPE = 30;
const LONGEST_NAME = 60;
/** Stands for "whatever the detector looks at" among the labels, none of which is empty or a star. */
const ANYTHING = "*";
const ONES = { objects: "object", texts: "text line", faces: "face" };
const ICONS = { objects: "box", texts: "text", faces: "face" };
const KEYS = { objects: "o", texts: "t", faces: "f" };

export class Stage {
  #image;
  #findings;
  #signal;
  #setQuery;
  #shown;
  #drawing = null;
  #loading = null;
  #heat = "";
  #unblurred = false;

  constructor({ image, findings, query, signal, setQuery }) {
    this.#image = image;
    this.#findings = findings;
    this.#signal = signal;
    this.#setQuery = setQuery;
    const hidden = (query.get("hide") ?? "").split(",");
    this.#shown = new Set(LAYERS.filter((layer) => !hidden.includes(layer)));
    this.picture = h("span", { class: "picture" }, skeleton({ height: "100%" }));
    this.names = h("div", { class: "stage-names", "aria-hidden": "true" });
    const { width = 4, height = 3 } = findings.image ?? {};
    this.ratio = Math.min(Math.max(width / height, 1 / LONGEST_SHAPE), LONGEST_SHAPE);
    this.stretched = this.ratio !== width / height;
    this.frame = h("div", { class: `stage-frame ${this.stretched ? "stretched" : ""}`,
      style: { aspectRatio: String(this.ratio), "--ratio": String(this.ratio), "--width": `${width}px` } }, this.picture, this.names);
    this.message = h("div", { class: "stage-message" });
    this.element = h("section", { class: "stage", "aria-label": "Picture" }, this.#tools(), h("div", { class: "stage-ground" }, this.frame), this.message);
    this.#draw();
    this.#load();
    this.#listen();
  }

  /** Lights the outline of one finding up; `index` null ends it. */
  light(layer, index) {
    light(this.#drawing, layer, index);
    for (const name of this.names.children) {
      const lit = name.dataset.layer === layer && name.dataset.index === String(index);
      name.classList.toggle("lit", lit);
      name.classList.toggle("faded", index !== null && !lit);
    }
  }

  #tools() {
    this.toggles = Object.fromEntries(LAYERS.map((layer) => [layer, button({
      text: counted(this.#findings[layer]?.length ?? 0, ONES[layer]), icon: ICONS[layer], small: true, key: KEYS[layer],
      pressed: this.#shown.has(layer) && this.#findings[layer]?.length > 0, disabled: !this.#findings[layer]?.length, onclick: () => this.#toggle(layer) })]));
    this.blur = button({ text: "Unblurred", icon: "eye", small: true, pressed: false, key: "u",
      title: "Show what privacy settings hide; needs a key with the scope review (u)", onclick: () => this.#setUnblurred(!this.#unblurred) });
    this.heat = select({ "aria-label": "Heat map", options: this.#explainable(), onchange: () => this.#setHeat(this.heat.value) });
    return h("div", { class: "stage-tools row", role: "group", "aria-label": "Layers" },
      Object.values(this.toggles), h("span", { class: "push" }), this.heat, this.blur);
  }

  #explainable() {
    const labels = [...new Set((this.#findings.objects ?? []).map((one) => one.label)), ...Object.keys(this.#findings.scores ?? {})];
    return [["", "No heat map"], [ANYTHING, "Heat map: all the detector sees"], ...labels.map((label) => [label, `Heat map: ${labelWords(label).slice(0, LONGEST_NAME)}`])];
  }

  #listen() {
    addShortcuts("Picture", [
      ...LAYERS.map((layer) => ({ key: KEYS[layer], text: `Boxes of ${layer === "texts" ? "text lines" : layer}`, run: () => this.#toggle(layer) })),
      { key: "h", text: "Heat map of the next label, or none", run: () => this.#nextHeat() },
      { key: "u", text: "Unblurred", run: () => this.#setUnblurred(!this.#unblurred) },
    ], this.#signal);
  }

  #toggle(layer) {
    if (!this.#findings[layer]?.length) return;
    if (!this.#shown.delete(layer)) this.#shown.add(layer);
    press(this.toggles[layer], this.#shown.has(layer));
    this.#setQuery({ hide: LAYERS.filter((one) => !this.#shown.has(one)).join(",") });
    this.#draw();
  }

  #draw() {
    this.#drawing?.remove();
    this.#drawing = overlay(this.#findings, { show: [...this.#shown], fit: this.stretched ? "none" : "meet" });
    if (this.#drawing) this.picture.after(this.#drawing);
    fill(this.names, this.#named());
  }

  /** Names at the boxes of the surest objects; of more they would cover the picture, and the list has them. */
  #named() {
    const { width, height } = this.#findings.image ?? {};
    if (!width || !this.#shown.has("objects")) return [];
    return (this.#findings.objects ?? []).map((one, index) => ({ one, index }))
      .sort((a, b) => b.one.score - a.one.score).slice(0, NAMED)
      .map(({ one, index }) => h("span", { class: `stage-name ${one.box[1] / height < 0.07 ? "inside" : ""}`, data: { layer: "objects", index: String(index) },
        style: { left: `${Math.max(one.box[0] / width, 0) * 100}%`, top: `${Math.max(one.box[1] / height, 0) * 100}%` } }, `${labelWords(one.label).slice(0, LONGEST_NAME)} ${one.score.toFixed(2)}`));
  }

  #nextHeat() {
    const labels = this.#explainable().map(([label]) => label);
    this.#setHeat(labels[(labels.indexOf(this.#heat) + 1) % labels.length]);
  }

  #setHeat(label) {
    this.#heat = this.heat.value = label;
    this.#load();
  }

  #setUnblurred(unblurred) {
    this.#unblurred = unblurred;
    press(this.blur, unblurred);
    this.#load();
  }

  /** Shows the picture as it is asked for now; what was under way before is given up. */
  async #load() {
    this.#loading?.abort();
    this.#loading = new AbortController();
    const signal = AbortSignal.any([this.#signal, this.#loading.signal]);
    const heat = this.#heat;
    this.frame.classList.add("loading");
    fill(this.message, heat && h("p", { class: "soft small", role: "status" }, `Asking the model what it went by${aboutHeat(heat)} …`));
    await showIn(this.picture, this.#image.image_id, {
      what: heat ? "explain" : "picture", signal, alt: altOf(this.#image),
      query: { size: SIZE, feed: this.#image.feed, unblurred: this.#unblurred || null, label: heat === ANYTHING ? null : heat },
      onshown: () => fill(this.message,
        heat && h("p", { class: "soft small" }, `The warmer, the more a place counted${aboutHeat(heat)}. A heat map hints at reasons; it proves none.`),
        this.stretched && h("p", { class: "soft small" }, "Too narrow to be seen in its own proportions, so it is stretched here.")),
      onfailed: (problem) => this.#failed(problem),
    });
    if (!signal.aborted) this.frame.classList.remove("loading");
  }

  #failed(problem) {
    if (this.#heat || this.#unblurred) {
      // The plain picture comes back, so that a key without the scope loses nothing.
      toast(problem);
      this.#heat = this.heat.value = "";
      this.#unblurred = false;
      press(this.blur, false);
      this.#load();
      return;
    }
    fill(this.message, problem.detail && notice(problem.detail, "review"));
  }
}

const aboutHeat = (label) => (label === ANYTHING ? "" : ` for “${labelWords(label).slice(0, LONGEST_NAME)}”`);
