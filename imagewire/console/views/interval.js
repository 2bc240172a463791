/** A share between 0 and 1 with how sure it is: a bar from `low` to `high`, a line at the estimate. */

import { h } from "../dom.js";
import { percent } from "../format.js";

/** interval({low, high, precision | estimate}) → node */
export function interval({ low, high, precision, estimate = precision }) {
  if (![low, high].every(Number.isFinite)) return null;
  const at = (value) => `${Math.min(Math.max(value, 0), 1) * 100}%`;
  return h("span", { class: "interval" },
    h("span", { class: "interval-track", "aria-hidden": "true" },
      h("span", { class: "interval-range", style: { insetInlineStart: at(low), inlineSize: at(high - low) } }),
      Number.isFinite(estimate) && h("span", { class: "interval-mark", style: { insetInlineStart: at(estimate) } })),
    h("span", { class: "small figures nowrap" }, `${percent(low)} to ${percent(high)}`));
}
