/**
 * Decisions of this sitting: sent, remembered, taken back. A decision that is still on its way cannot
 * be taken back yet, so undoing waits for it instead of failing.
 */

import { post } from "../api.js";

const NAME = "imagewire.reviewer";
const REASONS = "imagewire.review.reasons";
const USUAL = ["Nudity", "Violence", "Hate", "Personal data", "Spam or scam", "Harmless"];
const UNDO_TRIES = 4;
const UNDO_PAUSE_MS = 700;
const MOST_AT_ONCE = 200;
const REMEMBERED = 200;

/** The name to decide under, or "": then it is the key's. */
export function reviewerName() {
  return stored(NAME, "");
}

export function setReviewerName(name) {
  store(NAME, name);
}

/** Reasons to choose from: those that were given last, filled up with usual ones. At most nine. */
export function reasons() {
  const used = stored(REASONS, []);
  const own = Array.isArray(used) ? used.filter((one) => typeof one === "string" && one) : [];
  return [...new Set([...own, ...USUAL])].slice(0, 9);
}

function remember(reason) {
  if (!reason || USUAL.includes(reason)) return;
  const own = stored(REASONS, []);
  store(REASONS, [reason, ...(Array.isArray(own) ? own : []).filter((one) => one !== reason)].slice(0, 5));
}

/** What was decided since the page was loaded, the latest first; it outlives the view. */
class Sitting {
  decided = [];
  listeners = new Set();

  /** Calls `listener()` after every change until `signal` aborts. */
  onchange(listener, signal) {
    this.listeners.add(listener);
    signal.addEventListener("abort", () => this.listeners.delete(listener), { once: true });
  }

  changed() {
    for (const listener of this.listeners) listener();
  }

  /** Ids that are decided, and so no longer wait, whatever a queue that lags behind says. */
  get ids() {
    return this.decided.map((one) => one.image.image_id);
  }

  has(id) {
    return this.decided.some((one) => one.image.image_id === id);
  }

  /**
   * Decides over images; returns those that are unknown by now. What fails is no longer counted as
   * decided, and the problem is raised.
   */
  async decide(images, decision, { reason = "", labels = [] } = {}) {
    remember(reason);
    const made = images.map((image) => ({ image, decision, reason, sent: false, undoing: false }));
    this.decided = [...made.toReversed(), ...this.decided].slice(0, REMEMBERED);
    this.changed();
    const unknown = [];
    try {
      for (let start = 0; start < made.length; start += MOST_AT_ONCE) {
        const part = made.slice(start, start + MOST_AT_ONCE);
        const answer = await post("v1/review/decisions", { ...by(), decisions: part.map(({ image }) => ({
          image_id: image.image_id, decision, ...(reason && { reason }), ...(labels.length && { labels }) })) });
        for (const one of part) one.sent = true;
        unknown.push(...(answer.unknown ?? []));
      }
    } catch (problem) {
      this.drop(made.filter((one) => !one.sent));
      throw problem;
    }
    this.drop(made.filter((one) => unknown.includes(one.image.image_id)));
    return unknown;
  }

  /** Takes decisions back; they stay listed until that is done. */
  async undo(entries) {
    for (const one of entries) one.undoing = true;
    this.changed();
    try {
      await this.withdraw(entries);
    } catch (problem) {
      for (const one of entries) one.undoing = false;
      this.changed();
      throw problem;
    }
    this.drop(entries);
  }

  async withdraw(entries) {
    const ids = entries.map((one) => one.image.image_id);
    for (let attempt = 1; ; attempt += 1) {
      try {
        await post("v1/review/undo", { ...(ids.length === 1 ? { image_id: ids[0] } : { image_ids: ids }), ...by() });
        return;
      } catch (problem) {
        const early = problem.status === 404 || problem.status === 409;
        if (!early || attempt === UNDO_TRIES) throw problem;
        await new Promise((resolve) => setTimeout(resolve, UNDO_PAUSE_MS));
      }
    }
  }

  drop(entries) {
    if (!entries.length) return;
    this.decided = this.decided.filter((one) => !entries.includes(one));
    this.changed();
  }
}

export const sitting = new Sitting();

/** Who decides, as fields of a request. */
export function by() {
  const name = reviewerName();
  return name ? { reviewer: name } : {};
}

function stored(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? otherwise;
  } catch {
    return otherwise; // storage is forbidden, or holds what another version wrote
  }
}

function store(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // It then holds for no longer than this page; nothing depends on it.
  }
}
