/** Icons, drawn for this console on a grid of 24 with a stroke of 1.7. They are decoration: the word
 * beside them, or the button's label, carries the meaning. */

import { s } from "../dom.js";

const PATHS = {
  live: "M4 5h6v6H4zM14 5h6v6h-6zM4 15h6v4H4zM14 15h6v4h-6z",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16.200 16.200 20.500 20.500",
  review: "M4 12.500l5 5L20 6.500",
  sql: "M5 6c0-3 14-3 14 0s-14 3-14 0v12c0 3 14 3 14 0V6M5 12c0 3 14 3 14 0",
  policy: "M12 3l7.500 3v5.500c0 4.500-3 8-7.500 9.500-4.500-1.500-7.500-5-7.500-9.500V6z",
  image: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15 9h.01",
  key: "M8 12a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM10.900 13.100 20 4M16.500 7.500l2.800 2.800M13.500 10.500l1.800 1.800",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2.500v2M12 19.500v2M2.500 12h2M19.500 12h2M5.300 5.300l1.400 1.400M17.300 17.300l1.400 1.400M5.300 18.700l1.400-1.400M17.300 6.700l1.400-1.400",
  moon: "M20 14.500A8.500 8.500 0 0 1 9.500 4a8.500 8.500 0 1 0 10.500 10.500z",
  system: "M4 5h16v11H4zM9 20h6M12 16v4",
  keyboard: "M3 6.500h18v11H3zM7 10h.01M11 10h.01M15 10h.01M18 10h.01M7 14h10",
  pause: "M8 5v14M16 5v14",
  play: "M7 4.500v15l12-7.500z",
  close: "M6 6l12 12M18 6 6 18",
  check: "M5 12.500l4.500 4.500L19 7.500",
  question: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM9.500 9.500c0-3.300 5-3.300 5 0 0 2-2.500 2.200-2.500 4.200M12 16.800h.01",
  stop: "M8.300 3h7.400L21 8.300v7.400L15.700 21H8.300L3 15.700V8.300zM8 12h8",
  warning: "M12 4 2.800 20h18.400zM12 10v4.500M12 17.300h.01",
  info: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 11v5.500M12 7.800h.01",
  down: "M12 4v12M6.500 11l5.500 5.500 5.500-5.500M5 20h14",
  copy: "M9 9h11v11H9zM15 9V4H4v11h5",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  up: "M12 20V6M6.500 11 12 5.500 17.500 11",
  eye: "M2.500 12S6 5.500 12 5.500 21.500 12 21.500 12 18 18.500 12 18.500 2.500 12 2.500 12zM12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6z",
  hidden: "M4 4l16 16M9.500 6c.8-.3 1.600-.5 2.500-.5 6 0 9.500 6.500 9.500 6.500a17 17 0 0 1-3.200 3.900M6.200 7.800A17 17 0 0 0 2.500 12S6 18.500 12 18.500c1.500 0 2.900-.4 4.100-1M10 10a3 3 0 0 0 4 4",
  box: "M4 8V4h4M16 4h4v4M20 16v4h-4M8 20H4v-4",
  text: "M5 6V4.500h14V6M12 4.500v15M9 19.500h6",
  face: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM9 10h.01M15 10h.01M8.500 14.500c2 2.500 5 2.500 7 0",
  heat: "M12 3c1 4 6 5.500 6 11a6 6 0 0 1-12 0c0-2.500 1.200-4 2.500-5.500.3 2 1 3 2 3.500-.5-3.500 0-6.500 1.500-9z",
  undo: "M8 5 4 9l4 4M4 9h9.500a5.500 5.500 0 0 1 0 11H8",
  refresh: "M20 5v5h-5M4 19v-5h5M19.500 10A8 8 0 0 0 5.500 7.500M4.500 14a8 8 0 0 0 14 2.500",
  filter: "M4 5h16l-6 8v6l-4-2v-4z",
  upload: "M12 16V4M6.500 9.500 12 4l5.500 5.500M5 20h14",
  link: "M10 14a4 4 0 0 0 6 .4l3-3a4 4 0 0 0-5.700-5.700l-1.500 1.500M14 10a4 4 0 0 0-6-.4l-3 3a4 4 0 0 0 5.700 5.700l1.500-1.500",
  plus: "M12 5v14M5 12h14",
  external: "M14 4h6v6M20 4l-9 9M18 14v6H4V6h6",
};

/** An icon by name, hidden from screen readers. */
export function icon(name) {
  const path = PATHS[name];
  if (path === undefined) throw new RangeError(`there is no icon "${name}"`);
  return s("svg", { viewBox: "0 0 24 24", fill: "none", stroke: "currentColor", "stroke-width": 1.7,
    "stroke-linecap": "round", "stroke-linejoin": "round", "aria-hidden": "true" }, s("path", { d: path }));
}
