/** What can be asked about: the views and their columns, searched as one types, written by a click. */

import { input } from "../components/controls.js";
import { empty } from "../components/states.js";
import { fill, h } from "../dom.js";

/** schemaList(schema, insert) → element; `insert(text)` writes a name into the editor. */
export function schemaList(schema, insert) {
  const list = h("div", { class: "schema-list" });
  const search = input({ type: "search", placeholder: "Find a view or column", "aria-label": "Find a view or column", oninput: show });

  function show() {
    const wanted = search.value.trim().toLowerCase();
    const found = schema.views.map((view) => {
      if (!wanted || view.name.toLowerCase().includes(wanted)) return { view, columns: view.columns };
      return { view, columns: view.columns.filter((column) => `${column.name} ${column.comment ?? ""}`.toLowerCase().includes(wanted)) };
    }).filter(({ columns }) => columns.length);
    fill(list, found.length
      ? found.map(({ view, columns }) => entry(view, columns, wanted !== "" && found.length <= 6))
      : empty({ icon: "search", title: "Nothing is called that", slim: true }));
  }

  function entry(view, columns, open) {
    return h("details", { open },
      h("summary", {}, h("span", { class: "mono" }, view.name), h("span", { class: "small soft" }, view.columns.length)),
      view.comment && h("p", { class: "small soft" }, view.comment),
      h("ul", { class: "schema-columns" },
        h("li", {}, name(view.name, "the view", null)),
        columns.map((column) => h("li", {}, name(column.name, column.type, column.comment)))));
  }

  function name(text, type, comment) {
    return h("button", { class: "schema-name", type: "button", title: [`Write ${text}`, comment].filter(Boolean).join(": "), onclick: () => insert(text) },
      h("span", { class: "mono" }, text), h("span", { class: "small soft cut" }, type));
  }

  show();
  return h("div", { class: "stack" }, search, list);
}
