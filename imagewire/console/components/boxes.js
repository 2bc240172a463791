/**
 * What was found, drawn over a picture: boxes of objects and faces, outlines of text lines. Vector
 * graphics in the picture's own pixels, so one drawing fits every size.
 */

import { s } from "../dom.js";

export const LAYERS = ["objects", "texts", "faces"];

/**
 * An <svg> to lie exactly over the picture's element.
 *
 * `findings` as on images.findings; `show` says which layers are drawn; `fit` is how the picture fills
 * its element ("slice" for object-fit: cover, "meet" for contain, "none" for fill); `strongest` limits the boxes of
 * each layer. Returns null where the picture's size is unknown.
 */
export function overlay(findings, { show = LAYERS, fit = "meet", strongest = 100 } = {}) {
  const { width, height } = findings?.image ?? {};
  if (!(width > 0 && height > 0)) return null;
  return s("svg", { class: "overlay", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: fit === "none" ? fit : `xMidYMid ${fit}`, "aria-hidden": "true" },
    LAYERS.filter((layer) => show.includes(layer)).map((layer) => s("g", { class: `layer ${layer}` },
      ranked(findings[layer], strongest).map(({ finding, index }) => outline(layer, finding, index)))));
}

function ranked(findings, strongest) {
  return (findings ?? []).map((finding, index) => ({ finding, index }))
    .sort((a, b) => b.finding.score - a.finding.score).slice(0, strongest);
}

/** Each outline twice: a dark halo below the colour, so that it is seen on any ground. */
function outline(layer, finding, index) {
  const points = layer === "texts" ? finding.quad : corners(finding.box);
  const text = points.map(([x, y]) => `${x},${y}`).join(" ");
  return s("g", { class: "outline", "data-layer": layer, "data-index": index },
    s("polygon", { class: "halo", points: text }), s("polygon", { class: "stroke", points: text }));
}

function corners([left, top, right, bottom]) {
  return [[left, top], [right, top], [right, bottom], [left, bottom]];
}

/** Lights one outline up (`index` null: none), as when its line in a list is pointed at. */
export function light(drawing, layer, index) {
  drawing?.classList.toggle("pointing", index !== null);
  for (const one of drawing?.querySelectorAll(".outline") ?? []) {
    one.classList.toggle("lit", one.dataset.layer === layer && one.dataset.index === String(index));
  }
}
