/** Texts of any length: the beginning, and the rest for who unfolds it. */

import { h } from "../dom.js";

const SHOWN = 300;

/** long(text) → the text itself while it is short, else an element. */
export function long(text) {
  const all = String(text);
  if (all.length <= SHOWN * 1.2) return all;
  // Between words if there are any; never between the halves of a character such as an emoji.
  const head = all.slice(0, SHOWN).replace(/\s\S{0,40}$/, "").replace(/[\ud800-\udbff]$/, "");
  return h("details", { class: "long" }, h("summary", {}, head, h("span", { class: "soft" }, "… ")), all.slice(head.length));
}
