/** Buttons and fields. A control always has a name: visible text, or `label` where an icon stands alone. */

import { h } from "../dom.js";
import { icon } from "./icons.js";

/**
 * button({text: "Save", icon: "check", kind: "primary", onclick})
 *
 * kind: "", "primary", "plain", "danger", "allow", "review"; `small`; `pressed` (true/false) makes a
 * toggle; `label` names a button without text and becomes its tooltip; `key` tells the shortcut.
 */
export function button({ text, icon: name, kind = "", small, pressed, label, key, type = "button", ...rest }) {
  const classes = ["button", kind, small && "small", !text && "icon"].filter(Boolean).join(" ");
  const title = [label, key && `(${key})`].filter(Boolean).join(" ");
  return h("button", { class: classes, type, "aria-label": text ? null : label, title: title || null,
    "aria-pressed": pressed === undefined ? null : String(pressed),
    "aria-keyshortcuts": key ?? null, ...rest }, name && icon(name), text);
}

/** A link that looks like a button. */
export function linkButton({ text, icon: name, kind = "", small, ...rest }) {
  return h("a", { class: ["button", kind, small && "small"].filter(Boolean).join(" "), ...rest }, name && icon(name), text);
}

/** Flips a toggle made with `pressed`. */
export function press(toggle, pressed) {
  toggle.setAttribute("aria-pressed", String(pressed));
}

/** A labelled control: field("Feed", h("input", {class: "input"}), "may be empty"). */
export function field(label, control, hint) {
  return h("label", { class: "field" }, h("span", {}, label, hint && h("span", { class: "hint soft" }, ` ${hint}`)), control);
}

/** input({value, placeholder, type, list: ["suggestions"], …}) */
export function input({ list, ...rest }) {
  if (!list) return h("input", { class: "input", type: "text", autocomplete: "off", ...rest });
  const id = `list-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
  const control = h("input", { class: "input", type: "text", autocomplete: "off", list: id, ...rest });
  control.suggestions = h("datalist", { id }, list.map((value) => h("option", { value })));
  return control;
}

/** select({value, options: [["", "Any feed"], ["a", "a"]], onchange}) */
export function select({ options, value = "", ...rest }) {
  const control = h("select", { class: "input", ...rest });
  setOptions(control, options, value);
  return control;
}

/** Replaces the options and keeps `value` selected, even if it is not among them. */
export function setOptions(control, options, value = control.value) {
  const known = options.some(([key]) => key === value);
  const all = known || !value ? options : [...options, [value, value]];
  control.replaceChildren(...all.map(([key, text]) => h("option", { value: key, selected: key === value }, text)));
  control.value = value;
}

/** A checkbox with its words. */
export function check({ text, ...rest }) {
  return h("label", { class: "check" }, h("input", { type: "checkbox", ...rest }), h("span", {}, text));
}

/**
 * One of a few: choice({label: "Verdict", value, options: [["", "All"], ["block", "Block", "stop"]],
 * onchange(value)}); the third part is an icon. A radio group, so arrow keys work.
 */
export function choice({ label, value, options, onchange }) {
  const name = `choice-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
  return h("fieldset", { class: "choice" }, h("legend", { class: "unseen" }, label),
    options.map(([key, text, image]) => h("label", {},
      h("input", { type: "radio", name, value: key, checked: key === value, onchange: () => onchange(key) }),
      h("span", {}, image && icon(image), text))));
}

/** A short word in a pill; with `href` a link. */
export function chip(text, { href, ...rest } = {}) {
  return h(href ? "a" : "span", { class: "chip", href, ...rest }, h("span", { class: "cut" }, text));
}
