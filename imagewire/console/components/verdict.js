/** Verdicts, told by word, shape and colour, so that no reader depends on one of them. */

import { h } from "../dom.js";
import { icon } from "./icons.js";

export const VERDICTS = ["allow", "review", "block"];
const SHAPES = { allow: "check", review: "question", block: "stop" };
const WORDS = { allow: "Allow", review: "Review", block: "Block" };

/** The word for a verdict; a value this version does not know is shown as it is. */
export function verdictWord(verdict) {
  return WORDS[verdict] ?? (verdict ? String(verdict) : "No verdict");
}

export function verdictIcon(verdict) {
  return icon(SHAPES[verdict] ?? "info");
}

/** badge("block"), badge("review", {large: true, by: "person"}) */
export function badge(verdict, { large = false, by = "" } = {}) {
  const known = VERDICTS.includes(verdict) ? verdict : "";
  return h("span", { class: `badge ${known} ${large ? "large" : ""}` }, verdictIcon(verdict), verdictWord(verdict),
    by === "person" && h("span", {}, " by a person"));
}

/** A badge for anything else: tag("shadow"), tag("failed", "block"). */
export function tag(text, tone = "") {
  return h("span", { class: `badge ${tone}` }, text);
}
