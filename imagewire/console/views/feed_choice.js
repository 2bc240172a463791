/** A choice of feed that can be used at once; the names come when the API has told them. */

import { get } from "../api.js";
import { select, setOptions } from "../components/controls.js";

/** feedChoice({value, signal, onchange, …}) → a <select> with "Any feed" and every feed there is */
export function feedChoice({ value = "", signal, ...rest }) {
  const any = ["", "Any feed"];
  const control = select({ value, options: [any], ...rest });
  fillIn();
  return control;

  async function fillIn() {
    try {
      const { feeds } = await get("v1/feeds", {}, { signal });
      setOptions(control, [any, ...feeds.map((one) => [one.feed, one.feed])]);
    } catch {
      // One can do without the names; what the view itself asks for will say what is wrong.
    }
  }
}
