/**
 * SQL: an editor with the schema and examples beside it, and the answer as a table, as a chart, or as
 * a file. A statement that came with the address is written into the editor and not run: whoever
 * sends a link does not decide what somebody else's rights are used for.
 */

import { get, post, Problem, request } from "../api.js";
import { button, choice, field, input, select } from "../components/controls.js";
import { dialog } from "../components/dialog.js";
import { empty, failed, loading, notice } from "../components/states.js";
import { addShortcuts } from "../components/shortcuts.js";
import { toast } from "../components/toast.js";
import { fill, h } from "../dom.js";
import { counted, milliseconds } from "../format.js";
import { answerChart, chartable } from "./answer_chart.js";
import { answerTable } from "./answer_table.js";
import { sqlEditor } from "./sql_editor.js";
import { draft, dropQuery, EXAMPLES, keepDraft, keepQuery, keptQueries } from "./sql_examples.js";
import { schemaList } from "./sql_schema.js";

/** More rows than this are for a file, not for a page. */
const MAX_ROWS = 10000;
/** The settings say how long a statement may run, mostly less; beyond this nobody answers any more. */
const LONGEST_MS = 600_000;

export async function show(page, { query, signal, setQuery }) {
  let running = null;
  let shape = "table";
  const editor = sqlEditor({ value: query.get("q") || draft(), describedBy: "sql-keys", onRun: run, onChange: keepDraft });
  const status = h("p", { class: "small soft figures", role: "status" });
  const answer = h("section", { class: "card sql-answer", "aria-label": "Answer" },
    empty({ icon: "sql", title: "The answer stands here", detail: "Run the statement above, or begin with one of the examples.", slim: true }));
  const runButton = button({ text: "Run", icon: "play", kind: "primary", title: "Ctrl or ⌘ and Enter", onclick: run });
  const stopButton = button({ text: "Stop", icon: "close", hidden: true, onclick: () => running?.abort() });
  const besideList = h("div", {});
  const besideChoice = h("div", {}, choice({ label: "Beside the editor", value: "schema", options: [["schema", "Schema"], ["examples", "Examples"]], onchange: showBeside }));

  async function run() {
    const statement = editor.input.value.trim();
    if (!statement) return void editor.input.focus();
    running?.abort();
    const mine = new AbortController();
    running = mine;
    setQuery({ q: statement.length < 4000 ? statement : null });
    editor.mark(null);
    stopButton.hidden = false;
    answer.setAttribute("aria-busy", "true");
    status.textContent = "Running…";
    const waiting = setTimeout(() => fill(answer, h("div", { class: "card-body" }, loading(5, "Waiting for the answer"))), 250);
    const begun = performance.now();
    try {
      const found = await post("v1/sql", { query: statement, format: "json", max_rows: MAX_ROWS }, { signal: AbortSignal.any([signal, mine.signal]), within: LONGEST_MS });
      clearTimeout(waiting);
      if (running !== mine) return;
      const took = milliseconds(found.elapsed_ms ?? performance.now() - begun);
      status.textContent = `${counted(found.rows.length, "row")} in ${took}`;
      showAnswer(found, statement);
    } catch (problem) {
      clearTimeout(waiting);
      if (signal.aborted || running !== mine) return;
      if (problem.name === "AbortError") {
        status.textContent = "Stopped";
        fill(answer, empty({ icon: "sql", title: "Stopped", detail: "The statement was given up before its answer was complete.", slim: true }));
        return;
      }
      status.textContent = "";
      editor.mark(lineOf(problem));
      fill(answer, failed(problem, { again: problem.status >= 500 || problem.status === 0 ? run : undefined, slim: true }));
    } finally {
      if (running === mine) {
        running = null;
        stopButton.hidden = true;
        answer.removeAttribute("aria-busy");
      }
    }
  }

  function showAnswer(found, statement) {
    const { columns, rows } = found;
    const plan = rows.length ? chartable(columns) : null;
    const body = h("div", { class: "card-body flush" });
    const measure = plan && select({ "aria-label": "What is drawn", class: "input slim", options: plan.measures.map((index) => [String(index), columns[index].name]),
      value: String(plan.measures[0]), onchange: draw });
    const one = plan && (plan.measures.length > 1 ? measure : null);

    function draw() {
      const charted = plan && shape === "chart";
      if (one) one.hidden = !charted;
      fill(body,
        found.error && h("div", { class: "answer-note" }, notice(`The answer broke off: ${found.error.message ?? found.error}`, "error")),
        found.truncated && h("div", { class: "answer-note" }, notice(`Only the first ${counted(rows.length, "row")}; the file has all that the settings allow.`)),
        charted ? h("div", { class: "card-body" }, answerChart(plan, columns, rows, Number(measure.value)))
          : rows.length ? answerTable(columns, rows)
            : empty({ icon: "sql", title: "No rows", detail: "The statement ran, and nothing matched.", slim: true }));
    }

    fill(answer,
      h("header", {},
        h("h2", {}, "Answer"),
        one,
        plan && choice({ label: "Shown as", value: shape, options: [["table", "Table"], ["chart", "Chart"]], onchange: (value) => { shape = value; draw(); } }),
        rows.length > 0 && button({ text: "CSV", icon: "down", small: true, title: "Run it again and download every row as CSV", onclick: (event) => download(statement, event.currentTarget) })),
      body);
    draw();
  }

  async function download(statement, control) {
    control.disabled = true;
    try {
      const response = await request("v1/sql", { method: "POST", json: { query: statement, format: "csv" }, accept: "text/csv", signal, within: LONGEST_MS });
      const made = URL.createObjectURL(await whole(response));
      h("a", { href: made, download: `imagewire-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.csv` }).click();
      setTimeout(() => URL.revokeObjectURL(made), 60000);
    } catch (problem) {
      if (!signal.aborted) toast(problem);
    } finally {
      control.disabled = false;
    }
  }

  async function keep() {
    const name = await dialog({ title: "Keep this statement", build: (close) => {
      const named = input({ required: true, maxlength: 80, name: "name", autofocus: true });
      return h("form", { class: "stack", onsubmit: (event) => { event.preventDefault(); close(named.value.trim()); } },
        field("Name", named, "one of the same name is replaced"),
        h("p", { class: "small soft" }, "It is kept in this browser only."),
        h("footer", {}, button({ text: "Keep", kind: "primary", type: "submit" })));
    } });
    if (!name) return;
    if (keepQuery(name, editor.input.value)) toast(`Kept as “${name}”`, { tone: "done" });
    else toast("This browser forbids the page to store anything, so it was not kept");
    showBeside("examples");
  }

  async function showBeside(which) {
    fill(besideList, which === "examples" ? examples() : loading(6, "Loading the schema"));
    for (const radio of besideChoice.querySelectorAll("input")) radio.checked = radio.value === which;
    if (which === "examples") return;
    const list = await schema();
    if (list && besideChoice.querySelector("input:checked").value === "schema") fill(besideList, list);
  }

  function examples() {
    const kept = keptQueries();
    const entry = ({ name, query: text }, drop) => h("li", {},
      h("button", { class: "example", type: "button", title: text, onclick: () => { editor.replace(text); keepDraft(text); } }, name),
      drop && button({ icon: "close", label: `Forget ${name}`, kind: "plain", small: true, onclick: () => { dropQuery(name); showBeside("examples"); } }));
    return h("div", { class: "stack" },
      kept.length > 0 && [h("h3", {}, "Kept here"), h("ul", { class: "examples" }, kept.map((one) => entry(one, true)))],
      h("h3", {}, "To begin with"), h("ul", { class: "examples" }, EXAMPLES.map((one) => entry(one, false))));
  }

  let known = null;
  async function schema() {
    try {
      known ??= await get("v1/sql/schema", {}, { signal });
      return schemaList(known, (text) => editor.insert(text));
    } catch (problem) {
      if (signal.aborted) return null;
      return failed(problem, { again: () => showBeside("schema"), slim: true });
    }
  }

  fill(page,
    h("div", { class: "page-head" }, h("h1", {}, "SQL")),
    h("div", { class: "sql-page" },
      h("div", { class: "stack loose sql-main" },
        h("section", { class: "card", "aria-label": "Statement" },
          editor.element,
          h("div", { class: "sql-bar" }, runButton, stopButton, button({ text: "Keep", kind: "plain", onclick: keep }), status,
            h("p", { class: "small soft push", id: "sql-keys" }, h("kbd", {}, "Ctrl"), " ", h("kbd", {}, "Enter"), " runs, ", h("kbd", {}, "Esc"), " ", h("kbd", {}, "Tab"), " leaves the editor"))),
        answer),
      h("aside", { class: "card sql-beside", "aria-label": "Schema and examples" }, h("div", { class: "card-body stack" }, besideChoice, besideList))));
  addShortcuts("SQL", [{ key: "e", text: "To the editor", run: () => editor.input.focus() },
    { key: "Ctrl Enter", text: "Run, in the editor" }, { key: "Ctrl /", text: "Comment lines, or not" },
    { key: "Escape Tab", text: "Leave the editor" }], signal);
  await showBeside("schema");
}

/** A file that is broken off has no place to say why. */
async function whole(response) {
  try {
    return await response.blob();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ title: "The file broke off", detail: "The result has more rows than the settings allow, or took too long. Add a LIMIT, or ask for less." });
  }
}

/** The line that ClickHouse complains of, if it says so. */
function lineOf(problem) {
  const found = /\(line (\d+), col \d+\)/.exec(`${problem.detail}`);
  return found ? Number(found[1]) : null;
}
