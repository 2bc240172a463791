/** What people decided so far: whether rules are right, whether reviewers agree, who decided how much. */

import { get } from "../api.js";
import { empty, failed, loading } from "../components/states.js";
import { table } from "../components/table.js";
import { badge } from "../components/verdict.js";
import { fill, h } from "../dom.js";
import { ago, percent, whole } from "../format.js";
import { interval } from "./interval.js";

/** Shows the figures in `place`. */
export async function reviewAgreement(place, { onwaiting, signal }) {
  fill(place, loading(6, "Loading what was decided"));
  try {
    const found = await get("v1/review/stats", {}, { signal });
    onwaiting(found.queue);
    fill(place, h("div", { class: "stack loose" }, cards(found)));
  } catch (problem) {
    if (!signal.aborted) fill(place, h("section", { class: "card" }, failed(problem, { again: () => reviewAgreement(place, { onwaiting, signal }) })));
  }
}

function cards({ reviewers = [], rule_agreement: agreement = [], rule_precision: precision = [], reviewer_agreement: pairs = [] }) {
  if (!reviewers.length) {
    return h("section", { class: "card" }, empty({ icon: "review", title: "Nothing is decided yet", detail: "As soon as people decide, it stands here how often they and the rules agree." }));
  }
  return [
    card("How often rules are right", "Estimated from images drawn by chance, so these hold for all that a rule decides. The bar is the interval that covers the truth in 95 of 100 cases.",
      precision.length ? table({ label: "How often rules are right", rows: precision, columns: [
        { title: "Rule", value: (row) => row.rule },
        { title: "Verdict", value: (row) => badge(row.machine_verdict) },
        { title: "Right", number: true, value: (row) => percent(row.precision) },
        { title: "95 % interval", value: (row) => interval(row) },
        { title: "Checked", number: true, value: (row) => whole(row.audited) }] })
        : empty({ icon: "question", title: "No audits yet", detail: "Set [audit] in the settings to have some verdicts drawn by chance and checked by people.", slim: true })),
    agreement.length > 0 && card("What people made of verdicts they saw", "They look at what is doubtful, so this is no estimate of a rule's quality.",
      table({ label: "What people made of verdicts", rows: agreement, columns: [
        { title: "Rule", value: (row) => row.rule },
        { title: "Verdict", value: (row) => badge(row.machine_verdict) },
        { title: "Decided", number: true, value: (row) => whole(row.decided) },
        { title: "Allowed", number: true, value: (row) => whole(row.allowed) },
        { title: "Blocked", number: true, value: (row) => whole(row.blocked) },
        { title: "Overturned", number: true, value: (row) => (Number.isFinite(row.overturn_rate) ? percent(row.overturn_rate) : null) },
        { title: "Policy", value: (row) => h("code", {}, row.policy) }] })),
    card("Reviewers", null, table({ label: "Reviewers", rows: reviewers, columns: [
      { title: "Reviewer", value: (row) => row.reviewer },
      { title: "Decisions", number: true, value: (row) => whole(row.decisions) },
      { title: "Allowed", number: true, value: (row) => whole(row.allowed) },
      { title: "Blocked", number: true, value: (row) => whole(row.blocked) },
      { title: "Taken back", number: true, value: (row) => whole(row.withdrawn) },
      { title: "Last", class: "nowrap", value: (row) => ago(row.last) }] })),
    pairs.length > 0 && card("How often two reviewers agree", "Over images that both decided. Kappa leaves out what chance would explain: 1 is always, 0 no better than chance.",
      table({ label: "How often two reviewers agree", rows: pairs, columns: [
        { title: "Reviewers", value: (row) => `${row.reviewer_a} and ${row.reviewer_b}` },
        { title: "Images", number: true, value: (row) => whole(row.images) },
        { title: "Agreed", number: true, value: (row) => percent(row.agreement) },
        { title: "Kappa", number: true, value: (row) => (Number.isFinite(row.kappa) ? row.kappa.toFixed(2) : null) }] })),
  ];
}

function card(title, about, content) {
  return h("section", { class: "card" }, h("header", {}, h("h2", {}, title)), about && h("p", { class: "card-about small soft" }, about), h("div", { class: "card-body flush" }, content));
}
