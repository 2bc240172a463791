/**
 * Policy and models: which rules are in force and how often each fires, what is tried in shadow, which
 * models looked, and whether what they see has changed.
 */

import { get } from "../api.js";
import { choice } from "../components/controls.js";
import { empty, failed, loading, notice } from "../components/states.js";
import { table } from "../components/table.js";
import { tag } from "../components/verdict.js";
import { fill, h } from "../dom.js";
import { ago, counted, time, whole } from "../format.js";
import { hrefOf } from "../route.js";
import { driftCard } from "./policy_drift.js";
import { ruleList } from "./policy_rules.js";

const SPANS = [["1", "1 hour"], ["24", "1 day"], ["168", "7 days"]];

export async function show(page, { query, signal, setQuery }) {
  let hours = SPANS.some(([key]) => key === query.get("hours")) ? query.get("hours") : "24";
  const policy = h("div", { class: "stack loose" });
  const models = h("div", { class: "stack loose" });
  let asking = new AbortController();

  function draw() {
    asking.abort();
    asking = new AbortController();
    const until = AbortSignal.any([signal, asking.signal]);
    return Promise.all([
      part(policy, () => get("v1/policy", { hours }, { signal: until }), policyCards, until),
      part(models, () => get("v1/models", { hours }, { signal: until }), modelCards, until),
    ]);
  }

  async function part(place, ask, cards, until) {
    fill(place, h("section", { class: "card" }, h("div", { class: "card-body" }, loading(5))));
    try {
      const found = await ask();
      if (!until.aborted) fill(place, cards(found));
    } catch (problem) {
      if (until.aborted) return;
      fill(place, h("section", { class: "card" }, failed(problem, { again: () => part(place, ask, cards, until) })));
    }
  }

  fill(page,
    h("div", { class: "page-head" }, h("h1", {}, "Policy and models"),
      choice({ label: "Figures of the last", value: hours, options: SPANS, onchange: (value) => { hours = value; setQuery({ hours: value === "24" ? null : value }); draw(); } })),
    h("div", { class: "stack loose" }, policy, models));
  signal.addEventListener("abort", () => asking.abort(), { once: true });
  await draw();
}

const SOURCES = { shipped: "the policy that comes with Imagewire", file: "from the file in the settings", topic: "published to all workers" };

function policyCards(policy) {
  const rules = policy.rules ?? [];
  const inForce = rules.filter((rule) => rule.enabled && !rule.shadow);
  const shadow = rules.filter((rule) => rule.enabled && rule.shadow);
  const off = rules.filter((rule) => !rule.enabled);
  const versions = policy.versions ?? [];
  const others = policy.other_rules ?? [];
  return [
    h("section", { class: "card" },
      h("header", {}, h("h2", {}, "In force"), h("span", { class: "soft small" }, SOURCES[policy.source] ?? policy.source)),
      h("div", { class: "card-body stack" },
        h("div", { class: "figures-row" },
          figure("Version", policy.version ? h("code", {}, policy.version) : "none that can be used"), figure("Rules in force", whole(inForce.length)),
          figure("In shadow", whole(shadow.length)), figure("Images judged", whole(policy.images))),
        policy.trouble && notice(policy.trouble, "error"),
        (policy.warnings ?? []).map((warning) => notice(warningText(warning), "review")),
        versions.length > 0 && h("details", {}, h("summary", {}, counted(versions.length, "version"), " decided in the last 90 days"), versionTable(versions)),
        policy.text && h("details", {}, h("summary", {}, "The policy's text"), h("pre", { class: "policy-text", tabindex: 0 }, policy.text)))),
    h("section", { class: "card" }, h("header", {}, h("h2", {}, "Rules")),
      inForce.length ? ruleList(inForce, policy) : empty({ icon: "policy", title: "No rules", detail: "Every image is allowed.", slim: true })),
    shadow.length > 0 && h("section", { class: "card" }, h("header", {}, h("h2", {}, "In shadow")),
      h("p", { class: "card-about small soft" }, "Evaluated and recorded with every verdict, never acted on: what these would have done, had they been in force."),
      ruleList(shadow, policy)),
    others.length > 0 && h("section", { class: "card" }, h("header", {}, h("h2", {}, "Fired, and not of this policy")),
      h("p", { class: "card-about small soft" }, "Rules of earlier versions, and errors of rules that could not be evaluated."),
      h("div", { class: "card-body flush" }, table({ label: "Fired, and not of this policy", rows: others, columns: [
        { title: "Rule", value: (row) => row.name }, { title: "Fired", number: true, value: (row) => whole(row.fired) }] }))),
    off.length > 0 && h("section", { class: "card" }, h("header", {}, h("h2", {}, "Switched off")), ruleList(off, policy)),
  ];
}

function figure(name, value) {
  return h("div", { class: "one-figure" }, h("span", { class: "small soft" }, name), h("strong", { class: "figures" }, value));
}

function warningText(warning) {
  if (typeof warning === "string") return warning;
  const where = [warning.rule && `rule ${warning.rule}`, warning.line && `line ${warning.line}`].filter(Boolean).join(", ");
  return [where, warning.message].filter(Boolean).join(": ");
}

function versionTable(versions) {
  return table({ label: "Versions that decided", rows: versions, columns: [
    { title: "Version", value: (row) => h("code", {}, row.version) },
    { title: "Images", number: true, value: (row) => whole(row.images) },
    { title: "First", value: (row) => time(row.first) },
    { title: "Last", value: (row) => ago(row.last) }] });
}

function modelCards({ models = [], drift = [] }) {
  return [
    h("section", { class: "card" }, h("header", {}, h("h2", {}, "Models")),
      h("div", { class: "card-body flush" }, models.length ? table({ label: "Models", rows: models, columns: [
        { title: "Operator", value: (row) => row.operator },
        { title: "Model", value: (row) => row.name ?? row.model },
        { title: "Version", value: (row) => h("code", {}, row.version) },
        { title: "Task", value: (row) => row.task },
        { title: "Thresholds", value: (row) => thresholdText(row.thresholds) },
        { title: "Images", number: true, value: (row) => whole(row.images) },
        { title: "Last seen", value: (row) => (isOld(row.last_seen) ? [ago(row.last_seen), " ", tag("not lately")] : ago(row.last_seen)) },
        { title: "Licence", value: (row) => row.licence }] })
        : empty({ icon: "eye", title: "No model has looked yet", detail: "Models stand here once they have seen an image.", slim: true }))),
    driftCard(drift),
    h("p", { class: "small soft" }, "More of this in ", h("a", { href: hrefOf("sql", "", { q: "SELECT * FROM drift ORDER BY psi DESC" }) }, "SQL"), "."),
  ];
}

/** {person: 0.25} → "person 0.25"; many are counted. */
function thresholdText(thresholds) {
  const found = Object.entries(thresholds ?? {});
  const text = found.slice(0, 3).map(([name, value]) => `${name} ${value}`).join(", ");
  return found.length > 3 ? h("span", { title: found.map((one) => one.join(" ")).join(", ") }, `${text} and ${found.length - 3} more`) : text;
}

function isOld(text) {
  return Date.now() - new Date(text).getTime() > 86400e3;
}
