/** What goes with a decision: a reason, chosen or written, and labels for statistics and calibration. */

import { field, input } from "../components/controls.js";
import { h } from "../dom.js";
import { reasons } from "./review_decisions.js";

const LONGEST_REASON = 500;

/** decisionFields() → {element, reasons, value(), toggle(reason), clear(), focus()} */
export function decisionFields() {
  const known = reasons();
  const written = input({ maxlength: LONGEST_REASON, placeholder: "optional", oninput: mark });
  const labels = input({ placeholder: "optional, with commas between", spellcheck: "false" });
  const chips = known.map((reason, index) => h("button", { class: "chip reason", type: "button", "aria-pressed": "false", "aria-keyshortcuts": String(index + 1), onclick: () => toggle(reason) },
    h("kbd", { "aria-hidden": "true" }, index + 1), reason));

  function toggle(reason) {
    written.value = written.value === reason ? "" : reason;
    mark();
  }

  function mark() {
    for (const [index, chip] of chips.entries()) chip.setAttribute("aria-pressed", String(written.value === known[index]));
  }

  // Enter in a field means that it is done, and the keys decide again.
  for (const control of [written, labels]) {
    control.addEventListener("keydown", (event) => { if ((event.key === "Enter" && !event.isComposing) || event.key === "Escape") control.blur(); });
  }

  return {
    element: h("div", { class: "stack decision-fields" },
      h("div", { class: "row reasons", role: "group", "aria-label": "Reasons" }, chips),
      h("div", { class: "decision-inputs" }, field("Reason", written), field("Labels", labels))),
    reasons: known,
    value: () => ({ reason: written.value.trim(), labels: labels.value.split(",").map((one) => one.trim()).filter(Boolean).slice(0, 20) }),
    toggle,
    clear() {
      written.value = "";
      labels.value = "";
      mark();
    },
    focus: () => written.focus(),
  };
}
