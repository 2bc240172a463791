/** From when to when: a few usual spans, or two times of one's own. */

import { field, input, select } from "../components/controls.js";
import { h } from "../dom.js";

const SPANS = { "1h": ["The last hour", 3600e3], "1d": ["The last day", 86400e3], "7d": ["The last 7 days", 7 * 86400e3], "30d": ["The last 30 days", 30 * 86400e3] };

/**
 * period({span, since, until, onchange, any}) → {element, value()}
 *
 * value() is {span, since, until}: `since` and `until` in RFC 3339 or null, `span` "" for any time
 * (only with `any`), "own" for two times, else a name of SPANS, whose end is now.
 */
export function period({ span = "", since = null, until = null, onchange = () => {}, any = "Any time" }) {
  const options = [...(any ? [["", any]] : []), ...Object.entries(SPANS).map(([key, [text]]) => [key, text]), ["own", "From … to …"]];
  const known = options.some(([key]) => key === span) ? span : options[0][0];
  const choose = select({ options, value: since || until ? "own" : known, onchange: () => { reveal(); onchange(); } });
  const from = input({ type: "datetime-local", value: local(since), onchange: () => onchange() });
  const to = input({ type: "datetime-local", value: local(until), onchange: () => onchange() });
  const own = h("div", { class: "row period-own" }, field("From", from), field("To", to));
  reveal();

  function reveal() {
    own.hidden = choose.value !== "own";
  }

  return {
    element: h("div", { class: "row period" }, field("Time", choose), own),
    value() {
      if (choose.value === "own") return { span: "own", since: rfc3339(from.value), until: rfc3339(to.value) };
      const length = SPANS[choose.value]?.[1];
      return { span: choose.value, since: length ? new Date(Date.now() - length).toISOString() : null, until: null };
    },
  };
}

/** RFC 3339 → what datetime-local takes: the reader's own time, to the minute. */
function local(text) {
  const date = new Date(text ?? "");
  if (Number.isNaN(date.getTime())) return "";
  return new Date(date.getTime() - date.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

function rfc3339(text) {
  const date = new Date(text);
  return text && !Number.isNaN(date.getTime()) ? date.toISOString() : null;
}
