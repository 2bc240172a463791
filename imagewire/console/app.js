/**
 * The shell: addresses, navigation, key, theme, keyboard; everything else is a view.
 *
 * An address is `#/NAME/ARGUMENT?query`: `#/live?feed=gate-3`, `#/image/some%2Fid`. A view is a module
 * that exports
 *
 *     export async function show(page, route)
 *
 * `page` is an empty element that the view fills. `route` is
 *
 *     argument       what follows the name, decoded ("" if nothing does)
 *     query          URLSearchParams, a copy of the view's own
 *     signal         AbortSignal of this showing: hand it to every request, listener, timer and
 *                    addShortcuts; it aborts when the view is left or shown anew
 *     setQuery({feed: "a", label: null})   changes the address without showing the view anew; what a
 *                    person would want to share or come back to belongs there; "" and null remove
 *     setTitle("…")  the tab's title
 *
 * What show() throws (a Problem, most often) is shown in its place with a button that tries again.
 * A 401 opens the key dialog by itself, and the view is shown anew once a key was given.
 * Links are plain <a href="#/…">; `go("image", id)` and `hrefOf(…)` are in route.js.
 */

import { onKeyWanted } from "./api.js";
import { button } from "./components/controls.js";
import { icon } from "./components/icons.js";
import { askForKey } from "./components/key_dialog.js";
import { addShortcuts, listenForShortcuts, showShortcuts } from "./components/shortcuts.js";
import { failed, loading } from "./components/states.js";
import { themeSwitch } from "./components/theme_switch.js";
import { fill, h } from "./dom.js";
import { go, hrefOf, readAddress } from "./route.js";
import { VIEWS } from "./views.js";

/** How long nobody scrolls before it is noted how far down an entry of the history was read. */
const STANDS_STILL_MS = 200;
const page = document.getElementById("page");
let standing = null;
let leaving = new AbortController();
let shownHash = null;
let declined = false;

async function render({ focus = true } = {}) {
  const { name, argument, query } = readAddress(location.hash);
  const view = VIEWS.find((one) => one.name === name);
  if (!view) return void location.replace(hrefOf("live"));
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  shownHash = location.hash;
  clearTimeout(standing);
  const readUpTo = history.state?.scroll ?? 0;
  markTab(view);
  setTitle(view.title);
  const place = h("div", { class: `view view-${view.name}` });
  fill(page, place);
  fill(place, h("div", { class: "page-head" }, h("h1", {}, view.title)), loading(4, `Loading ${view.title}`));
  scrollTo(0, 0);
  // Whoever follows a link by keyboard or hears the page goes on from the new view's beginning.
  if (focus) page.focus({ preventScroll: true });
  const setQuery = (changes) => {
    for (const [key, value] of Object.entries(changes)) {
      query.delete(key);
      for (const one of [value].flat()) if (one !== null && one !== undefined && one !== "") query.append(key, one);
    }
    if (signal.aborted) return;
    shownHash = hrefOf(name, argument, query);
    history.replaceState(history.state, "", shownHash);
  };
  try {
    const module = await view.load();
    if (signal.aborted) return;
    place.replaceChildren();
    await module.show(place, { argument, query, signal, setQuery, setTitle });
    // Whoever comes back finds the place that was left; the browser itself would look before it is there.
    if (!signal.aborted && readUpTo > 0) scrollTo(0, readUpTo);
  } catch (problem) {
    if (signal.aborted) return;
    if (!problem.title && !(problem.status >= 0)) console.error(problem);
    fill(place, h("div", { class: "page-head" }, h("h1", {}, view.title)), failed(problem, { again: () => render() }));
  }
}

function setTitle(title) {
  document.title = `${title} · Imagewire`;
}

function markTab(view) {
  for (const tab of document.querySelectorAll(".tab")) {
    if (tab.dataset.view === (view.letter ? view.name : view.below)) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
}

/** Who closed the dialog without a key is not asked again until they go elsewhere. */
async function changeKey(problem) {
  if (problem && declined) return;
  declined = false;
  if (await askForKey(problem)) render();
  else declined = true;
}

function frame() {
  fill(document.getElementById("bar"),
    h("a", { class: "brand", href: hrefOf("live") }, h("img", { src: "icon.svg", alt: "", width: 26, height: 26 }), "Imagewire"),
    h("div", { class: "tools" },
      button({ icon: "key", label: "API key", kind: "plain", onclick: () => changeKey() }),
      themeSwitch(),
      button({ icon: "keyboard", label: "Keyboard shortcuts", key: "?", kind: "plain", onclick: () => showShortcuts() })));
  fill(document.getElementById("rail"), h("ul", {}, VIEWS.filter((view) => view.letter).map((view) => h("li", {},
    h("a", { class: "tab", href: hrefOf(view.name), data: { view: view.name } }, icon(view.icon), h("span", {}, view.tabTitle ?? view.title))))));
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // The hash is the address of the view, not of an element.
    page.focus();
  });
  addShortcuts("Everywhere", [
    ...VIEWS.filter((view) => view.letter).map((view) => ({ key: `g ${view.letter}`, text: `Go to ${view.title}`, run: () => go(view.name) })),
    { key: "?", text: "This list", run: showShortcuts },
  ]);
}

frame();
listenForShortcuts();
onKeyWanted(changeKey);
history.scrollRestoration = "manual";
addEventListener("scroll", () => {
  clearTimeout(standing);
  standing = setTimeout(() => history.replaceState({ ...history.state, scroll: Math.round(scrollY) }, ""), STANDS_STILL_MS);
}, { passive: true });
addEventListener("hashchange", () => {
  if (location.hash === shownHash) return;
  declined = false;
  render();
});
render({ focus: false });
