/**
 * Pictures by way of the API: fetched with the key (an <img> could not send one), a few at a time, so
 * that a wall of them leaves room for everything else, and kept for a while for whoever comes back.
 */

import { address, apiKey, queryOf, request } from "./api.js";
import { icon } from "./components/icons.js";
import { skeleton } from "./components/states.js";
import { fill, h } from "./dom.js";

/** Browsers open six connections to an address of HTTP/1.1; one is the stream's, two are for questions. */
const AT_ONCE = 3;
/** About 12 kB each at the size of a tile. Not for long: it may be blocked or erased meanwhile. */
const KEPT = 400;
const KEPT_MS = 60_000;
const TRIES = 3;
const LONGEST_WAIT_S = 5;
const STORED_AFTER_TRIES = 5;
const STORED_AFTER_MS = 1500;
const KEPT_UP_TO_BYTES = 100_000;

const waiting = [];
const kept = new Map();
let running = 0;

/** How many pictures are being fetched or wait for it: a wall adds no more than can be shown. */
export const picturesUnderWay = () => running + waiting.length;

/**
 * The bytes of a picture as a Blob. `query` as the route takes it (size, unblurred, label, …); `first`:
 * before those that wait already.
 */
export async function pictureBlob(id, { what = "picture", query, signal, first = false } = {}) {
  const path = address`v1/images/${id}/` + what;
  const name = `${apiKey()} ${path}${queryOf(query)}`;
  const found = kept.get(name);
  if (found && performance.now() - found.since < KEPT_MS) return found.blob;
  const release = await turn(signal, first);
  try {
    const blob = await (await patiently(path, { query, signal, accept: "image/webp, image/*" })).blob();
    if (blob.size <= KEPT_UP_TO_BYTES && !query?.unblurred) keep(name, blob);
    return blob;
  } finally {
    release();
  }
}

/** A server that has too much to do says when to come back; a picture can wait. */
async function patiently(path, options) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await request(path, options);
    } catch (problem) {
      const soon = problem.retryAfter !== null && problem.retryAfter <= LONGEST_WAIT_S;
      if (tries === TRIES || ![429, 503].includes(problem.status) || !soon) throw problem;
      await new Promise((resolve) => { setTimeout(resolve, problem.retryAfter * 1000); });
      options.signal?.throwIfAborted();
    }
  }
}

function keep(name, blob) {
  kept.delete(name);
  kept.set(name, { blob, since: performance.now() });
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
}

function turn(signal, first) {
  return new Promise((resolve, reject) => {
    const start = () => {
      signal?.removeEventListener("abort", leave);
      running += 1;
      resolve(() => { running -= 1; waiting.shift()?.(); });
    };
    const leave = () => {
      const place = waiting.indexOf(start);
      if (place >= 0) waiting.splice(place, 1);
      reject(signal.reason);
    };
    if (signal?.aborted) return void reject(signal.reason);
    if (running < AT_ONCE) return start();
    signal?.addEventListener("abort", leave, { once: true });
    if (first) waiting.unshift(start);
    else waiting.push(start);
  });
}

/** Calls back once for each element that comes near to what is seen of the page. */
const nearby = new Map();
const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    observer.unobserve(target);
    const start = nearby.get(target);
    nearby.delete(target);
    start?.();
  }
}, { rootMargin: "240px" });

/**
 * A place that shows the picture once it is in sight, and in words why not where it cannot be had.
 *
 * Options: `what`, `query`, `signal`, `first` as above (and with `first` it may not be stored yet); `alt`; `onshown(image)`; `onfailed(problem)`.
 */
export function picture(id, options = {}) {
  const place = h("span", { class: "picture" }, skeleton({ height: "100%" }));
  nearby.set(place, () => showIn(place, id, options));
  observer.observe(place);
  options.signal?.addEventListener("abort", () => { observer.unobserve(place); nearby.delete(place); }, { once: true });
  return place;
}

/** The same in an element that exists; what it shows stays until the new picture is there. */
export async function showIn(place, id, { alt = "", onshown, onfailed, ...options } = {}) {
  try {
    const image = await decodedImage(await storedPicture(id, options), alt);
    if (options.signal?.aborted) return;
    fill(place, image);
    onshown?.(image);
  } catch (problem) {
    if (options.signal?.aborted) return;
    fill(place, h("span", { class: "picture-missing" }, icon("hidden"), h("span", {}, shortReason(problem))));
    onfailed?.(problem);
  }
}

/** A verdict is out before its image is stored: of what has just arrived, "no such image" means not yet. */
async function storedPicture(id, options) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await pictureBlob(id, options);
    } catch (problem) {
      if (!options.first || problem.status !== 404 || tries === STORED_AFTER_TRIES) throw problem;
    }
    await new Promise((resolve) => { setTimeout(resolve, STORED_AFTER_MS); });
    options.signal?.throwIfAborted();
  }
}

async function decodedImage(blob, alt) {
  const image = h("img", { alt, decoding: "async", draggable: "false" });
  const source = URL.createObjectURL(blob);
  try {
    image.src = source;
    await image.decode();
  } finally {
    URL.revokeObjectURL(source);
  }
  return image;
}

function shortReason(problem) {
  return problem.status ? problem.message : "The picture cannot be shown";
}
