/** Light, dark, or as the system is. theme.js applies the choice before the first paint. */

import { fill } from "../dom.js";
import { button } from "./controls.js";
import { icon } from "./icons.js";

const ORDER = ["system", "light", "dark"];
const ICONS = { system: "system", light: "sun", dark: "moon" };

export function themeSwitch() {
  const control = button({ icon: "system", label: "Theme", kind: "plain", onclick: turn });
  show();
  return control;

  function turn() {
    const next = ORDER[(ORDER.indexOf(chosen()) + 1) % ORDER.length];
    try {
      if (next === "system") localStorage.removeItem("imagewire.theme");
      else localStorage.setItem("imagewire.theme", next);
    } catch {
      // The choice then lasts as long as the page.
    }
    if (next === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    show();
  }

  function show() {
    const now = chosen();
    fill(control, icon(ICONS[now]));
    control.title = `Theme: ${now}`;
    control.setAttribute("aria-label", `Theme: ${now}. Change`);
  }
}

function chosen() {
  return document.documentElement.dataset.theme ?? "system";
}
