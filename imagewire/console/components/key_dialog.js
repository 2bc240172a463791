/** Asking for the API key. It is kept for this tab only, and sent as a header, never in an address. */

import { apiKey, setApiKey } from "../api.js";
import { h } from "../dom.js";
import { button, field, input } from "./controls.js";
import { dialog } from "./dialog.js";
import { notice } from "./states.js";

let open = null;

/** Resolves to true when a key was given or forgotten; one dialog at a time. */
export function askForKey(problem) {
  open ??= ask(problem).finally(() => { open = null; });
  return open;
}

async function ask(problem) {
  const answer = await dialog({ title: "API key", build: (close) => {
    const key = input({ type: "password", name: "key", required: true, spellcheck: "false", autocapitalize: "off",
      autocomplete: "off", autofocus: true, "aria-describedby": "about-the-key" });
    return h("form", { class: "stack", onsubmit: (event) => {
      event.preventDefault();
      setApiKey(key.value.trim());
      close(true);
    } },
    problem && notice(problem.detail || problem.message, apiKey() ? "error" : ""),
    field("Key", key),
    h("p", { class: "small soft", id: "about-the-key" },
      "One of the keys in the settings, under [[api.keys]]. What you may see and do depends on its scopes. It is kept until this tab is closed."),
    h("footer", {},
      apiKey() && button({ text: "Forget the key", kind: "plain", onclick: () => { setApiKey(""); close(true); } }),
      button({ text: "Use this key", kind: "primary", type: "submit" })));
  } });
  return answer === true;
}
