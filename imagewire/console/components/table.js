/** Tables. Values come from records, so each is put in as text unless a column makes nodes itself. */

import { h } from "../dom.js";

/**
 * table({label: "Rules", columns: [{title: "Rule", value: (row) => row.name},
 *   {title: "Hits", number: true, value: (row) => row.hits}], rows})
 *
 * `value` returns text, a number or nodes; `number: true` aligns right. `label` names the table for
 * screen readers. Wide tables scroll inside their frame, which the keyboard reaches.
 */
export function table({ label, columns, rows, ...rest }) {
  return h("div", { class: "table-frame", tabindex: 0, role: "region", "aria-label": label },
    h("table", { class: "table", ...rest },
      h("thead", {}, h("tr", {}, columns.map((column) =>
        h("th", { scope: "col", class: column.number ? "number" : null }, column.title)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, columns.map((column) =>
        h("td", { class: [column.number && "number", column.class].filter(Boolean).join(" ") || null }, shown(column.value(row)))))))));
}

function shown(value) {
  return value === null || value === undefined || value === "" ? h("span", { class: "soft" }, "–") : value;
}

/** facts([["Feed", "gate-3"], ["Size", null]]): a list of names and values; empty ones are left out. */
export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}
