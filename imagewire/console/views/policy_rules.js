/** Rules, each with how often it fires and how often it is right; the condition unfolds. */

import { meter } from "../components/chart.js";
import { badge, tag } from "../components/verdict.js";
import { h } from "../dom.js";
import { percent, whole } from "../format.js";
import { hrefOf } from "../route.js";
import { interval } from "./interval.js";

/** ruleList(rules, policy) → element, by priority, then by how often they fired; bars are of one scale. */
export function ruleList(rules, policy) {
  const most = Math.max(...policy.rules.map((rule) => rule.hit_rate ?? 0), 0) || 1;
  const ordered = [...rules].sort((a, b) => b.priority - a.priority || (b.fired ?? 0) - (a.fired ?? 0));
  return h("ul", { class: "policy-rules" }, ordered.map((rule) => h("li", {}, entry(rule, most, policy))));
}

function entry(rule, most, policy) {
  return h("details", { class: "policy-rule" },
    h("summary", {},
      h("span", { class: "policy-rule-name" }, h("strong", {}, rule.name), badge(rule.action), limits(rule)),
      h("span", { class: "policy-rule-rate figures" }, meter((rule.hit_rate ?? 0) / most),
        h("span", {}, rule.fired ? `${rate(rule.hit_rate)} of images` : "never fired"),
        h("span", { class: "small soft" }, [rule.fired > 0 && `${whole(rule.fired)} in ${spanText(policy.hours)}`, precise(rule)].filter(Boolean).join("; ")))),
    h("div", { class: "policy-rule-inside stack" },
      rule.explanation && h("p", {}, rule.explanation),
      h("pre", { class: "condition", tabindex: 0, role: "group", "aria-label": `Condition of ${rule.name}` }, rule.condition),
      h("dl", { class: "facts" }, pairs(rule).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
      rule.fired > 0 && h("p", {}, h("a", { href: hrefOf("sql", "", { q: example(rule.name) }) }, "Images on which it fired"))));
}

/** How often it is right, if audits tell. */
function precise(rule) {
  const [found] = [rule.precision].flat();
  return Number.isFinite(found?.estimate) && `${percent(found.estimate)} right`;
}

/** Shares that are mostly small keep two digits. */
function rate(value) {
  if (!Number.isFinite(value)) return "–";
  return value > 0 && value < 0.001 ? "< 0.1 %" : percent(value);
}

function spanText(hours) {
  if (!Number.isFinite(hours)) return "this time";
  return hours < 48 ? `${hours} h` : `${Math.round(hours / 24)} days`;
}

function limits(rule) {
  return [
    rule.severity && tag(rule.severity, { critical: "block", high: "block", medium: "review" }[rule.severity] ?? ""),
    rule.sample < 1 && tag(`${percent(rule.sample)} of images`),
    rule.expires && tag(`until ${rule.expires}`),
    (rule.feeds ?? []).length > 0 && tag(rule.feeds.length === 1 ? `feed ${rule.feeds[0]}` : `${rule.feeds.length} feeds`),
  ];
}

function pairs(rule) {
  const audits = [rule.precision].flat().filter(Boolean);
  return [
    ["Priority", whole(rule.priority ?? 0)],
    ["Category", rule.category],
    ["Feeds", (rule.feeds ?? []).join(", ")],
    ...audits.map((one) => [`Right, of ${whole(one.audited)} checked`, h("span", { class: "row" }, percent(one.estimate), interval(one))]),
    ["Thresholds", thresholds(rule.condition ?? "").join("; ")],
  ].filter(([, value]) => value);
}

/** The comparisons with a number in a condition: what people look for when they ask for thresholds. */
export function thresholds(condition) {
  const code = condition.replace(/'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"/g, (text) => text.replaceAll(/[<>=]/g, " "));
  const found = code.matchAll(/([A-Za-z_][\w.]*(?:\[[^\]]*\])?(?:\(\))?)\s*(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?)/g);
  return [...new Set([...found].map(([, name, sign, number]) => `${name} ${sign} ${number}`))];
}

function example(name) {
  return `SELECT event_time, feed, image_id, verdict, explanation\nFROM rules_fired\nWHERE rule = '${name.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'\nORDER BY event_time DESC\nLIMIT 50`;
}
