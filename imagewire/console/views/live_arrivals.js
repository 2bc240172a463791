/**
 * Where the wall's pictures come from. Verdicts do not carry what was found, so with a filter by
 * object the stored images are asked for every two seconds instead.
 */

import { get } from "../api.js";
import { follow } from "../events.js";

const ASK_EVERY_MS = 2000;
const ASK_FOR = 50;

/**
 * Calls `onImage(summary)` for each image that is decided from now on and matches `filters`
 * ({feed, verdict, label}), until `signal` aborts; `onState` as of follow(). `onLabels(images)` gets
 * images whose objects are known.
 */
export function followImages({ filters, signal, onImage, onLabels, onState }) {
  if (filters.label) return ask({ filters, signal, onImage, onLabels, onState });
  const { feed, verdict } = filters;
  return follow("v1/verdicts/stream", { query: { feed, verdict }, signal, onState, onEvent: ({ event, data }) => {
    if (event === "verdict") onImage(summaryOf(JSON.parse(data)));
  } });
}

/** What a verdict's record tells of an image, in the shape of the API's summaries. */
export function summaryOf(record) {
  return { ...record, verdict: record.action, rules: (record.rules ?? []).filter((rule) => !rule.shadow).map((rule) => rule.rule) };
}

async function ask({ filters, signal, onImage, onLabels, onState }) {
  const seen = new Set();
  let first = true;
  while (!signal.aborted) {
    try {
      const { images } = await get("v1/images", { ...filters, limit: ASK_FOR }, { signal });
      onState({ state: "open" });
      onLabels(images);
      for (const image of images.toReversed()) {
        if (!seen.has(image.image_id) && !first) onImage(image);
      }
      seen.clear();
      for (const image of images) seen.add(image.image_id);
      first = false;
    } catch (problem) {
      if (signal.aborted) return;
      onState({ state: "waiting", problem, seconds: ASK_EVERY_MS / 1000 });
    }
    await new Promise((resolve) => { setTimeout(resolve, ASK_EVERY_MS); });
  }
}
