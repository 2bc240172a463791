/**
 * The field in which SQL is written: a plain textarea, so that undo, screen readers and the keyboards
 * of phones work as everywhere, with the manners that people expect of an editor: line numbers,
 * indentation, comments, and running by keyboard. After Escape, Tab leaves the field, or people
 * without a mouse would be caught in it.
 */

import { fill, h } from "../dom.js";

const INDENT = "  ";
const LEAST_ROWS = 8;
const MOST_ROWS = 22;

/**
 * sqlEditor({value, onRun, onChange, describedBy}) → {element, input, insert, replace, mark}
 *
 * insert(text) writes at the caret, replace(text) in the place of everything; both can be undone.
 * mark(3) points at the third line until something is written.
 */
export function sqlEditor({ value, onRun, onChange, describedBy }) {
  const numbers = h("div", { class: "sql-numbers", "aria-hidden": "true" });
  const input = h("textarea", { class: "sql-input", "aria-label": "Statement in SQL", "aria-describedby": describedBy, spellcheck: "false",
    autocomplete: "off", autocapitalize: "off", wrap: "off" });
  let marked = null;
  let leaving = false;
  let drawn = "";

  function number() {
    const lines = input.value.split("\n").length;
    input.rows = Math.min(Math.max(lines + 1, LEAST_ROWS), MOST_ROWS);
    if (drawn === `${lines} ${marked}`) return;
    drawn = `${lines} ${marked}`;
    fill(numbers, Array.from({ length: lines }, (_, line) => h("span", { class: line + 1 === marked ? "marked" : null }, line + 1)));
    numbers.scrollTop = input.scrollTop;
  }

  function changed() {
    marked = null;
    number();
    onChange(input.value);
  }

  function write(text) {
    input.focus();
    // Old, but alone in keeping the browser's own undo history.
    if (document.execCommand(text ? "insertText" : "delete", false, text)) return;
    input.setRangeText(text, input.selectionStart, input.selectionEnd, "end");
    changed();
  }

  const lineStart = (place) => input.value.lastIndexOf("\n", place - 1) + 1;

  /** Rewrites every line that the selection touches. */
  function rewrite(change) {
    const { selectionStart: from, selectionEnd: to } = input;
    const start = lineStart(from);
    const last = to > from && input.value[to - 1] === "\n" ? to - 1 : to;
    const next = input.value.indexOf("\n", last);
    const end = next < 0 ? input.value.length : next;
    const before = input.value.slice(start, end);
    const after = change(before.split("\n")).join("\n");
    if (after === before) return;
    const behind = input.value.length - to;
    input.setSelectionRange(start, end);
    write(after);
    const caret = Math.max(start, input.value.length - behind);
    if (from === to) input.setSelectionRange(caret, caret);
    else input.setSelectionRange(start, start + after.length);
  }

  input.addEventListener("keydown", (event) => {
    const command = event.ctrlKey || event.metaKey;
    const act = (run) => { event.preventDefault(); run(); };
    if (event.key === "Escape") { leaving = true; return; }
    if (event.isComposing) return;
    if (command && event.key === "Enter") act(onRun);
    else if (command && event.key === "/") act(() => rewrite(toggleComments));
    else if (event.key === "Tab" && !leaving && !command && !event.altKey) {
      const several = input.value.slice(input.selectionStart, input.selectionEnd).includes("\n");
      if (event.shiftKey) act(() => rewrite((lines) => lines.map((line) => line.replace(/^( {1,2}|\t)/, ""))));
      else if (several) act(() => rewrite((lines) => lines.map((line) => line && INDENT + line)));
      else act(() => write(INDENT));
    } else if (event.key === "Enter" && !event.shiftKey) {
      const [indent] = input.value.slice(lineStart(input.selectionStart), input.selectionStart).match(/^[ \t]*/);
      if (indent) act(() => write(`\n${indent}`));
    }
    if (event.key !== "Tab" && event.key !== "Shift") leaving = false;
  });
  input.addEventListener("blur", () => { leaving = false; });
  input.addEventListener("input", changed);
  input.addEventListener("scroll", () => { numbers.scrollTop = input.scrollTop; });
  input.value = value;
  number();

  return {
    element: h("div", { class: "sql-editor" }, numbers, input),
    input,
    insert(text) {
      const before = input.value.slice(0, input.selectionStart);
      write(before === "" || /[\s(.,]$/.test(before) ? text : ` ${text}`);
    },
    replace(text) {
      input.focus();
      input.select();
      write(text);
      input.setSelectionRange(0, 0);
      input.scrollTop = 0;
    },
    mark(line) {
      marked = line;
      number();
    },
  };
}

function toggleComments(lines) {
  const written = lines.filter((line) => line.trim());
  if (written.length && written.every((line) => /^\s*--/.test(line))) return lines.map((line) => line.replace(/^(\s*)-- ?/, "$1"));
  return lines.map((line) => (line.trim() || !written.length ? line.replace(/^(\s*)/, "$1-- ") : line));
}
