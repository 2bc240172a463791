/** Dialogs on the browser's own <dialog>: it keeps the focus inside, and Escape closes it. */

import { h } from "../dom.js";
import { button } from "./controls.js";

/**
 * Opens a dialog and returns a promise of what it was closed with (null when dismissed).
 *
 * build(close) returns the content; close(value) ends it. Content in a <form> that the browser's
 * `submit` closes must call close itself.
 */
export function dialog({ title, wide = false, build }) {
  return new Promise((resolve) => {
    const id = `dialog-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
    let result = null;
    const close = (value = null) => { result = value; element.close(); };
    const element = h("dialog", { class: `dialog ${wide ? "wide" : ""}`, "aria-labelledby": id,
      onclose: () => { element.remove(); resolve(result); },
      onclick: (event) => { if (event.target === element) element.close(); } });
    element.append(h("div", { class: "inside" },
      h("div", { class: "row apart" }, h("h2", { id }, title),
        button({ icon: "close", label: "Close", kind: "plain", small: true, onclick: () => close() })),
      build(close)));
    document.body.append(element);
    element.showModal();
  });
}

/** Asks before something that cannot be undone; resolves to true or false. */
export async function confirm({ title, detail, yes = "Continue", danger = false }) {
  const answer = await dialog({ title, build: (close) => h("div", { class: "stack" }, h("p", {}, detail),
    h("footer", {}, button({ text: "Cancel", onclick: () => close() }),
      button({ text: yes, kind: danger ? "danger" : "primary", onclick: () => close(true) }))) });
  return answer === true;
}
