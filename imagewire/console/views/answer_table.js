/**
 * An answer as a table: sorted by a click on a heading, and a page of rows at a time, since a browser
 * stalls over ten thousand rows that nobody reads at once.
 */

import { button } from "../components/controls.js";
import { append, fill, h } from "../dom.js";
import { whole } from "../format.js";
import { cellText, comparator, kindOf } from "./answer_columns.js";

const PAGE = 100;
const LONG = 200;
const LONGEST_TIP = 4000;

/** answerTable([{name, type}], [[…], …]) → element */
export function answerTable(columns, rows) {
  const kinds = columns.map((column) => kindOf(column.type));
  let sorted = rows;
  let order = null;
  let shown = 0;
  const body = h("tbody", {});
  const more = button({ text: "Show more", small: true, onclick: showMore });
  const headings = columns.map((column, index) => h("th", { scope: "col", class: classOf(kinds[index]) },
    h("button", { class: "sort", type: "button", title: `${column.type}. Sort by ${column.name}`, onclick: () => sort(index) }, column.name)));

  function sort(index) {
    // Numbers and times are mostly looked at from the largest, words from A.
    const first = kinds[index] === "number" || kinds[index] === "time";
    if (order?.index !== index) order = { index, descending: first };
    else order = order.descending === first ? { index, descending: !first } : null;
    const compare = order && comparator(kinds[index], order.descending);
    sorted = compare ? [...rows].sort((a, b) => compare(a[index], b[index])) : rows;
    for (const [each, heading] of headings.entries()) {
      if (order?.index === each) heading.setAttribute("aria-sort", order.descending ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
    }
    fill(body);
    shown = 0;
    showMore();
  }

  function showMore() {
    append(body, sorted.slice(shown, shown + PAGE).map((row) => h("tr", {}, row.map((value, index) => cell(value, kinds[index])))));
    shown = Math.min(shown + PAGE, sorted.length);
    more.hidden = shown === sorted.length;
    more.textContent = `Show more (${whole(shown)} of ${whole(sorted.length)} rows)`;
  }

  showMore();
  return h("div", { class: "answer-table" },
    h("div", { class: "table-frame", tabindex: 0, role: "region", "aria-label": "Rows of the answer" },
      h("table", { class: "table" }, h("thead", {}, h("tr", {}, headings)), body)),
    more);
}

function cell(value, kind) {
  if (value === null || value === undefined) return h("td", { class: classOf(kind) }, h("span", { class: "soft" }, "NULL"));
  const text = cellText(value);
  const short = text.length <= LONG;
  return h("td", { class: classOf(kind), title: short ? null : text.slice(0, LONGEST_TIP) },
    short ? text : `${text.slice(0, LONG)}…`);
}

function classOf(kind) {
  return { number: "number", nested: "mono", text: "words" }[kind] ?? "nowrap";
}
