/** Short messages that need no answer. Errors stay until they are closed; the rest go by themselves. */

import { h } from "../dom.js";
import { button } from "./controls.js";
import { icon } from "./icons.js";

const STAYS_MS = 6000;
const AT_MOST = 4;

/** toast("Saved", {tone: "done"}), toast(problem), toast("Blocked 3", {action: {text: "Undo", run}}) */
export function toast(message, { tone = "", action, stays = STAYS_MS } = {}) {
  const problem = message instanceof Error ? message : null;
  const kind = problem ? "error" : tone;
  const element = h("div", { class: `toast ${kind}` },
    icon(kind === "error" ? "warning" : kind === "done" ? "check" : "info"),
    h("div", {}, problem ? h("strong", {}, problem.message) : message,
      problem?.detail && h("div", { class: "small soft" }, problem.detail)),
    action && button({ text: action.text, kind: "plain", small: true, onclick: () => { close(element); action.run(); } }),
    button({ icon: "close", label: "Dismiss", kind: "plain", small: true, onclick: () => close(element) }));
  const place = document.getElementById("toasts");
  place.append(element);
  while (place.childElementCount > AT_MOST) place.firstElementChild.remove();
  if (kind !== "error") expire(element, stays);
  return element;
}

/** The focus that was in it goes to the view, not to the beginning of the page. */
function close(element) {
  element.remove();
  document.getElementById("page").focus({ preventScroll: true });
}

function expire(element, stays) {
  let timer = setTimeout(() => element.remove(), stays);
  // A message that is being read or is under the pointer does not run away.
  for (const start of ["pointerenter", "focusin"]) element.addEventListener(start, () => clearTimeout(timer));
  for (const end of ["pointerleave", "focusout"]) {
    element.addEventListener(end, () => { timer = setTimeout(() => element.remove(), stays); });
  }
}
