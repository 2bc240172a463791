/** Cards of what surrounds the findings: history, metadata, where it came from, the JSON. */

import { button } from "../components/controls.js";
import { copyButton, download } from "../components/copy.js";
import { long } from "../components/long.js";
import { facts } from "../components/table.js";
import { badge } from "../components/verdict.js";
import { append, h } from "../dom.js";
import { bytes, milliseconds, time, whole } from "../format.js";

export function historyCard(history) {
  const items = history ?? [];
  return h("section", { class: "card" }, h("header", {}, h("h2", {}, "History")),
    h("div", { class: "card-body" }, items.length === 0 ? h("p", { class: "soft" }, "No verdict is stored.")
      : h("ol", { class: "history" }, items.map((one) => h("li", {},
        h("div", { class: "row" }, badge(one.verdict), h("span", {}, decider(one)),
          h("time", { class: "soft small figures push", datetime: one.time }, time(one.time))),
        (one.rules ?? []).length > 0 && h("p", { class: "small" }, "Rules: ", one.rules.map((rule) => rule.rule ?? rule).join(", ")),
        one.reason && h("p", { class: "small" }, long(`“${one.reason}”`)),
        one.policy && h("p", { class: "soft small" }, "Policy ", h("code", {}, one.policy)))))));
}

export function metadataCard(metadata) {
  const pairs = Object.entries(metadata ?? {});
  return h("section", { class: "card" }, h("header", {}, h("h2", {}, "Metadata of the producer")),
    h("div", { class: "card-body" }, pairs.length === 0 ? h("p", { class: "soft" }, "None was sent.")
      : facts(pairs.map(([name, value]) => [name, typeof value === "object" ? h("code", {}, long(JSON.stringify(value))) : long(value)]))));
}

export function factsCard(image, findings) {
  const file = findings.image ?? {};
  const models = Object.entries(findings.models ?? {});
  const print = findings.fingerprint ?? {};
  return h("section", { class: "card" }, h("header", {}, h("h2", {}, "Facts")),
    h("div", { class: "card-body stack" },
      facts([
        ["Feed", image.feed], ["Time", time(image.event_time)], ["Latency", Number.isFinite(image.latency_ms) ? milliseconds(image.latency_ms) : null],
        ["Size", file.width ? `${whole(file.width)} × ${whole(file.height)} px` : null],
        ["File", file.format ? `${file.format.toUpperCase()}, ${bytes(file.bytes)}${file.truncated ? ", its end is missing" : ""}` : null],
        ["Address", image.uri ? uriOf(image.uri) : "the bytes came on Kafka"],
        ["Content id", longId(image.content_id)],
        ["PDQ", print.pdq ? [longId(print.pdq), h("span", { class: "soft" }, ` quality ${print.pdq_quality}`)] : null],
      ]),
      models.length > 0 && h("h3", {}, "Models"),
      models.length > 0 && facts(models.map(([operator, name]) => [operator, h("code", {}, name)]))));
}

function decider({ by, reviewer, withdrawn, of_image: other }) {
  const who = by === "policy" ? "by the policy" : reviewer ? `by ${reviewer}` : "by a person";
  return [who, withdrawn && ", a decision was taken back", other && `, on a copy (${other})`].filter(Boolean).join("");
}

/** Never a link: following a stranger's address out of a moderation tool tells him who looks. */
function uriOf(uri) {
  const shown = uri.length > 300 ? `${uri.slice(0, 300)}…` : uri;
  return h("span", { class: "with-copy" }, h("span", { class: "mono" }, shown), copyButton(uri, "Copy the address"));
}

function longId(id) {
  return id ? h("span", { class: "with-copy" }, h("code", { title: id }, id.length > 24 ? `${id.slice(0, 24)}…` : id), copyButton(id)) : null;
}

/** Written out when it is unfolded: with thousands of findings it is long, and mostly nobody looks. */
export function jsonCard(known) {
  const body = h("div", { class: "card-body stack" });
  function show() {
    if (body.firstChild) return;
    const text = JSON.stringify(known, null, 2);
    append(body,
      h("div", { class: "row" }, copyButton(text, "Copy the JSON"),
        button({ text: "Download", icon: "down", small: true, onclick: () => download(text, `${known.image.image_id}.json`) })),
      h("pre", { tabindex: 0, role: "group", "aria-label": "JSON of this image" }, text));
  }
  return h("details", { class: "card json", ontoggle: show }, h("summary", {}, h("h2", {}, "JSON")), body);
}
