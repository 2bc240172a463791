/** What a view shows instead of content: nothing there, something wrong, not there yet. */

import { h } from "../dom.js";
import { button } from "./controls.js";
import { icon } from "./icons.js";
import { long } from "./long.js";

/** empty({icon: "image", title: "No images yet", detail: "…", actions: [button(…)]}) */
export function empty({ icon: name = "image", title, detail, actions = [], slim = false }) {
  return h("div", { class: `state ${slim ? "slim" : ""}` }, icon(name), h("h2", {}, title),
    detail && h("p", {}, detail), actions.length > 0 && h("div", { class: "row" }, actions));
}

/** A Problem (or any Error) with its title, detail, request id, and a way to try again. */
export function failed(problem, { again, slim = false } = {}) {
  return h("div", { class: `state error ${slim ? "slim" : ""}`, role: "alert" }, icon("warning"),
    h("h2", {}, problem.message || "Something went wrong"),
    problem.detail && h("p", {}, long(problem.detail)),
    (problem.errors ?? []).length > 0 && h("ul", { class: "small soft" },
      problem.errors.slice(0, 8).map((one) => h("li", {}, mistake(one)))),
    problem.requestId && h("p", { class: "request" }, "Request ", h("code", {}, problem.requestId)),
    again && h("div", { class: "row" }, button({ text: "Try again", icon: "refresh", onclick: () => {
      // The button goes away with what went wrong; the focus must not go with it.
      document.getElementById("page").focus({ preventScroll: true });
      again();
    } })));
}

/** One entry of a validation problem's `errors`: where, and what is wrong there. */
export function mistake(one) {
  if (typeof one === "string") return one;
  const where = one.where ?? one.loc ?? "";
  const what = one.what ?? one.msg ?? JSON.stringify(one);
  return where.length ? `${[where].flat().join(".")}: ${what}` : what;
}

/** A line inside content: notice("…"), notice("…", "review" | "error"). */
export function notice(text, tone = "") {
  return h("div", { class: `notice ${tone}`, role: tone === "error" ? "alert" : null },
    icon(tone ? "warning" : "info"), h("div", {}, text));
}

/** A grey shape of the content's size; loading(3) is three lines. */
export function skeleton({ width = "100%", height = "1em" } = {}) {
  return h("span", { class: "skeleton", style: { width, height } });
}
export function loading(lines = 3, what = "Loading") {
  return h("div", { class: "stack", role: "status", "aria-label": what },
    Array.from({ length: lines }, (_, line) => skeleton({ width: `${92 - (line * 23) % 50}%` })));
}
