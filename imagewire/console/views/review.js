/**
 * Review: the images that wait for a person, one by one or many at once, and what people made of the
 * verdicts so far.
 */

import { get } from "../api.js";
import { button, choice, field, input, select } from "../components/controls.js";
import { dialog } from "../components/dialog.js";
import { fill, h } from "../dom.js";
import { ago, whole } from "../format.js";
import { feedChoice } from "./feed_choice.js";
import { reviewAgreement } from "./review_agreement.js";
import { reviewBatch } from "./review_batch.js";
import { reviewerName, setReviewerName, sitting } from "./review_decisions.js";
import { reviewOne } from "./review_one.js";

const MODES = [["one", "One by one"], ["batch", "Batch"], ["agreement", "Agreement"]];
const COUNT_AGAIN_MS = 15000;

export async function show(page, { query, signal, setQuery }) {
  let mode = MODES.some(([key]) => key === query.get("mode")) ? query.get("mode") : "one";
  let part = new AbortController();
  const place = h("div", {});
  const waiting = h("p", { class: "soft figures" });
  const name = button({ text: nameText(), kind: "plain", small: true, onclick: changeName });
  const feed = feedChoice({ "aria-label": "Feed", value: query.get("feed") ?? "", signal, onchange: narrowed });
  const why = select({ "aria-label": "Why they wait", value: query.get("why") ?? "", onchange: narrowed,
    options: [["", "All that wait"], ["policy", "Asked for by the policy"], ["audit", "Drawn to check"]] });
  const filters = h("div", { class: "row review-filters" }, feed, why);

  function narrowed() {
    setQuery({ feed: feed.value, why: why.value });
    draw();
  }

  function draw() {
    part.abort();
    part = new AbortController();
    filters.hidden = mode === "agreement";
    name.hidden = filters.hidden;
    const until = AbortSignal.any([signal, part.signal]);
    const shared = { signal: until, onwaiting: tellWaiting, filters: () => ({ feed: feed.value, why: why.value }) };
    return { one: reviewOne, batch: reviewBatch, agreement: reviewAgreement }[mode](place, shared);
  }

  let counts = null;
  function tellWaiting(next = counts) {
    counts = next;
    if (!counts) return;
    const parts = [[counts.policy, "asked for by the policy"], [counts.audit, "drawn to check"]].filter(([count]) => count > 0);
    const words = [parts.length
      ? [parts.map(([count, text]) => `${whole(count)} ${text}`).join(", "), counts.oldest && `; the oldest came ${ago(counts.oldest)}`].filter(Boolean).join("")
      : "Nothing waits", sitting.decided.length > 0 && `; you decided ${whole(sitting.decided.length)}`].filter(Boolean).join("");
    if (waiting.textContent !== words) waiting.textContent = words;
  }

  async function changeName() {
    const given = await dialog({ title: "Who decides", build: (close) => {
      const own = input({ value: reviewerName(), maxlength: 100, name: "reviewer", autofocus: true, placeholder: "the name of the key" });
      return h("form", { class: "stack", onsubmit: (event) => { event.preventDefault(); close({ name: own.value.trim() }); } },
        field("Your name", own),
        h("p", { class: "small soft" }, "Decisions are kept under it. A key for reviewing has a name of its own, which counts then; leave this empty."),
        h("footer", {}, button({ text: "Use this name", kind: "primary", type: "submit" })));
    } });
    if (!given) return;
    setReviewerName(given.name);
    name.textContent = nameText();
    draw();
  }

  async function countAgain() {
    if (document.hidden || mode === "agreement") return;
    try {
      tellWaiting((await get("v1/review/queue", { limit: 1, feed: feed.value, why: why.value }, { signal })).waiting);
    } catch {
      // Counting is no reason to disturb; the next decision will tell if something is wrong.
    }
  }

  fill(page,
    h("div", { class: "page-head" }, h("h1", {}, "Review"),
      choice({ label: "How", value: mode, options: MODES, onchange: (value) => { mode = value; setQuery({ mode: value === "one" ? null : value }); draw(); } })),
    h("div", { class: "stack" }, h("div", { class: "row apart review-head" }, h("div", { class: "row" }, waiting, name), filters), place));
  sitting.onchange(() => tellWaiting(), signal);
  signal.addEventListener("abort", () => part.abort(), { once: true });
  const timer = setInterval(countAgain, COUNT_AGAIN_MS);
  signal.addEventListener("abort", () => clearInterval(timer), { once: true });
  await draw();
}

function nameText() {
  return reviewerName() ? `Reviewing as ${reviewerName()}` : "Set your name";
}
