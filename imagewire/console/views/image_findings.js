/** Cards of what was found: verdict and rules, matches, objects, text, faces, scores. */

import { meter } from "../components/chart.js";
import { chip } from "../components/controls.js";
import { long } from "../components/long.js";
import { badge, tag, verdictWord } from "../components/verdict.js";
import { h } from "../dom.js";
import { labelWords, score, time } from "../format.js";

const LISTED = 40;

function card(title, aside, ...content) {
  return h("section", { class: "card" }, h("header", {}, h("h2", {}, title), aside), h("div", { class: "card-body stack" }, content));
}

export function verdictCard(image, findings) {
  const verdict = findings.verdict;
  if (!verdict) return card("Verdict", null, h("p", { class: "soft" }, "No policy was in force when this image came."));
  const rules = verdict.rules ?? [];
  return card("Why", null,
    verdict.decided_by === "person" && verdict.machine_action
      && h("p", { class: "soft" }, `A person decided${verdict.decided_at ? ` at ${time(verdict.decided_at)}` : ""}; the policy says ${verdictWord(verdict.machine_action).toLowerCase()}.`),
    rules.length ? h("ul", { class: "rules stack" }, rules.map(ruleItem)) : h("p", { class: "soft" }, "No rule fired."),
    (verdict.audit ?? []).length > 0 && h("p", { class: "soft small" }, `Drawn so that people check: ${verdict.audit.join(", ")}`),
    h("p", { class: "soft small" }, "Policy ", h("code", {}, verdict.policy)));
}

function ruleItem(rule) {
  return h("li", { class: `rule ${rule.shadow ? "shadow" : rule.action}` },
    h("div", { class: "row" }, h("strong", {}, rule.rule), badge(rule.action), rule.shadow && tag("shadow"),
      rule.severity && tag(rule.severity)),
    rule.category && h("p", { class: "soft small" }, rule.category),
    rule.explanation && h("p", {}, long(rule.explanation)),
    rule.shadow && h("p", { class: "soft small" }, "Recorded only: a shadow rule has no part in the verdict."));
}

/** Banlists, exemplars, terms and personal data; null if there are none. */
export function matchesCard({ hashes = [], similar = [], terms = [], redactions = [] }) {
  if (!hashes.length && !similar.length && !terms.length && !redactions.length) return null;
  return card("Matches", null, h("ul", { class: "rules stack" },
    hashes.map((one) => match(`On the list ${one.list}`, one.action, one.reason,
      one.kind === "sha256" ? "the same file" : `${one.distance} of 256 bits differ${one.turned ? `, ${one.turned}` : ""}`)),
    similar.map((one) => match(`Near an exemplar of ${one.list}`, one.action, one.reason, `distance ${score(one.distance)}`)),
    terms.map((one) => match(`Term “${one.term}” of ${one.list}`, "", [one.category, one.severity].filter(Boolean).join(", "), `in line ${one.line + 1}`)),
    redactions.map((one) => match(`Personal data taken out: ${one.kind}`, "", "", `in line ${one.line + 1}`))));
}

function match(title, action, reason, detail) {
  return h("li", { class: `rule ${action}` }, h("div", { class: "row" }, h("strong", {}, title), action && badge(action)),
    h("p", { class: "soft small" }, [detail, reason].filter(Boolean).join(" · ")));
}

/** A list whose lines light their outline in the picture up, by pointer and by keyboard. */
function pointedList(layer, items, pointAt, line) {
  const shown = items.map((item, index) => ({ item, index })).sort((a, b) => (layer === "texts" ? 0 : b.item.score - a.item.score)).slice(0, LISTED);
  return [
    h("ul", { class: "found" }, shown.map(({ item, index }) => h("li", { tabindex: 0,
      onpointerenter: () => pointAt(layer, index), onpointerleave: () => pointAt(layer, null),
      onfocus: () => pointAt(layer, index), onblur: () => pointAt(layer, null) }, line(item)))),
    items.length > LISTED && h("p", { class: "soft small" }, `and ${items.length - LISTED} more, in the JSON below`),
  ];
}

export function objectsCard({ objects = [] }, pointAt) {
  if (!objects.length) return null;
  return card("Objects", h("span", { class: "soft small figures" }, objects.length), pointedList("objects", objects, pointAt, (one) => [
    h("span", { class: "found-name", title: one.label }, labelWords(one.label)), meter(one.score), h("span", { class: "figures" }, score(one.score))]));
}

export function textsCard({ texts = [] }, pointAt) {
  if (!texts.length) return null;
  return card("Text", h("span", { class: "soft small figures" }, texts.length), pointedList("texts", texts, pointAt, (one) => [
    h("span", { class: "found-text", dir: "auto" }, long(one.text)), h("span", { class: "figures" }, score(one.score))]));
}

export function facesCard({ faces = [] }, pointAt) {
  if (!faces.length) return null;
  return card("Faces", h("span", { class: "soft small figures" }, faces.length), pointedList("faces", faces, pointAt, (one) => [
    h("span", { class: "found-name" }, "Face"), meter(one.score), h("span", { class: "figures" }, score(one.score))]));
}

export function scoresCard({ scores = {}, models = {} }) {
  const sorted = Object.entries(scores).sort((a, b) => b[1] - a[1]).slice(0, LISTED);
  if (!sorted.length) return null;
  return card("Scores", models.scores && chip(models.scores), h("ul", { class: "found" }, sorted.map(([name, value]) => h("li", {},
    h("span", { class: "found-name", title: name }, labelWords(name)), meter(value, value >= 0.5 ? "warm" : ""), h("span", { class: "figures" }, score(value))))));
}

