/**
 * An answer as a picture. What can be drawn follows from the columns: a time and a number make lines,
 * words and a number make bars. The table says the same in full, so a chart may leave out what does
 * not fit, as long as it says so.
 */

import { barChart, lineChart } from "../components/chart.js";
import { h } from "../dom.js";
import { cellText, kindOf, millis, numberIn } from "./answer_columns.js";

const MOST_BARS = 30;
const MOST_SERIES = 4;
const MOST_POINTS = 2000;
const EXACT = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 5 });

/**
 * What of an answer can be drawn, or null.
 * @returns {{kind: "lines"|"bars", time?: number, names: number[], measures: number[]} | null}
 *   `names` and `measures` are indexes of columns: what tells rows apart, and what can be measured.
 */
export function chartable(columns) {
  const kinds = columns.map((column) => kindOf(column.type));
  const indexes = (kind) => kinds.flatMap((each, index) => (each === kind ? [index] : []));
  const measures = indexes("number");
  const names = indexes("text");
  const [time] = indexes("time");
  if (!measures.length) return null;
  if (time !== undefined) return { kind: "lines", time, names, measures };
  if (names.length) return { kind: "bars", names, measures };
  // Numbers only: the first is what the others are counted by, as a size or a partition.
  return measures.length > 1 ? { kind: "bars", names: measures.slice(0, 1), measures: measures.slice(1) } : null;
}

/** The chart of one measure of what `chartable` found. */
export function answerChart(plan, columns, rows, measure) {
  const usable = rows.filter((row) => Number.isFinite(numberIn(row[measure])));
  if (!usable.length) return said("No row has a number in this column.");
  if (usable.some((row) => numberIn(row[measure]) < 0)) return said("This column has values below zero, which these charts do not draw; the table has them.");
  const label = columns[measure].name;
  const nameOf = (row) => plan.names.map((index) => cellText(row[index]) || "(empty)").join(" · ");
  return plan.kind === "lines"
    ? lines(plan, columns, usable, measure, label, nameOf)
    : bars(usable, measure, label, nameOf);
}

function bars(rows, measure, label, nameOf) {
  const shown = rows.slice(0, MOST_BARS);
  const left = rows.length - shown.length;
  return h("div", { class: "stack" },
    barChart({ label, format: (value) => EXACT.format(value), bars: shown.map((row) => ({ name: nameOf(row), value: numberIn(row[measure]) })) }),
    left > 0 && said(`The first ${shown.length} rows; the table has ${left} more.`));
}

function lines(plan, columns, rows, measure, label, nameOf) {
  const series = new Map();
  for (const row of rows.slice(0, MOST_POINTS)) {
    const time = millis(row[plan.time]);
    if (Number.isNaN(time)) continue;
    const name = nameOf(row);
    if (!series.has(name)) series.set(name, []);
    series.get(name).push({ time, value: numberIn(row[measure]) });
  }
  const weight = ([, points]) => points.reduce((sum, point) => sum + point.value, 0);
  const all = [...series].sort((a, b) => weight(b) - weight(a));
  const shown = all.slice(0, MOST_SERIES);
  if (!shown.length) return said("No row has a time that can be read.");
  for (const [, points] of shown) points.sort((a, b) => a.time - b.time);
  const notes = [];
  if (all.length > shown.length) notes.push(`The ${shown.length} largest of ${all.length} series; the table has all.`);
  if (rows.length > MOST_POINTS) notes.push(`The first ${MOST_POINTS} of ${rows.length} rows.`);
  const drawn = lineChart({ label: `${label} by ${columns[plan.time].name}`, height: 260, format: (value) => EXACT.format(value) });
  drawn.update(shown.map(([name, points]) => ({ name: name || label, points })));
  return h("div", { class: "stack" }, drawn.element, notes.length > 0 && said(notes.join(" ")));
}

function said(text) {
  return h("p", { class: "small soft" }, text);
}
