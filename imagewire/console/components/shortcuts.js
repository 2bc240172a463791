/**
 * Single keys that do things. A view hands its own to the shell and they end with it; `?` lists what
 * holds now. They can be switched off, since people who speak to their computer or brush its keys
 * would set them off by accident (WCAG 2.1.4); Space and Enter on a focused control stay its own.
 */

import { h } from "../dom.js";
import { check } from "./controls.js";
import { dialog } from "./dialog.js";

const OFF = "imagewire.shortcuts-off";
const groups = [];

function enabled() {
  try {
    return localStorage.getItem(OFF) !== "1";
  } catch {
    return true;
  }
}

/**
 * addShortcuts("Live", [{key: "p", text: "Pause", run}], signal): `key` is KeyboardEvent.key, or two
 * keys in turn such as "g l"; `repeat: true` lets a held key fire again. Without `run` it is listed
 * only: keys that a control sees to itself, as "Shift Arrows" (held together).
 */
export function addShortcuts(title, keys, signal) {
  const group = { title, keys };
  groups.push(group);
  signal?.addEventListener("abort", () => groups.splice(groups.indexOf(group), 1), { once: true });
}

/** Listens on the document; called once, by the shell. */
export function listenForShortcuts() {
  let first = "";
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]") || writes(event.target)) return;
    if (event.key === "Shift") return;
    if (!enabled() && event.key !== "?") return;
    if ((event.key === " " || event.key === "Enter") && event.target.closest("button, a, summary, [role=button], [tabindex='0']")) return;
    const held = groups.flatMap((group) => group.keys).filter((one) => one.run);
    const match = held.findLast((one) => one.key === `${first} ${event.key}`) ?? held.findLast((one) => one.key === event.key);
    first = !match && held.some((one) => one.key.startsWith(`${event.key} `)) ? event.key : "";
    if (!match || (event.repeat && !match.repeat)) return;
    event.preventDefault();
    match.run(event);
  });
}

function writes(target) {
  return target instanceof HTMLElement
    && (target.isContentEditable || target.matches("textarea, select, input:not([type=checkbox], [type=radio], [type=range])"));
}

/** The list of what keys do, with the switch. */
export function showShortcuts() {
  return dialog({ title: "Keyboard", build: () => h("div", { class: "stack" },
    groups.map((group) => h("section", { class: "stack" }, h("h3", {}, group.title),
      h("dl", { class: "facts shortcuts" }, group.keys.filter((one) => one.text).map((one) => [
        h("dt", {}, one.key.split(" ").map((key) => [h("kbd", {}, NAMES[key] ?? key), " "])),
        h("dd", {}, one.text)])))),
    check({ text: "Single keys do these things", checked: enabled(), onchange: (event) => {
      try {
        localStorage.setItem(OFF, event.target.checked ? "" : "1");
      } catch {
        // Without storage the switch holds until the page is loaded again: nothing to keep it in.
      }
    } })) });
}

const NAMES = { Arrows: "← ↑ → ↓", Escape: "Esc" };
