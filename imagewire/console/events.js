/**
 * Server-sent events over fetch: EventSource cannot send a key. After an interruption the stream
 * goes on behind the last event that was seen (Last-Event-ID), so that nothing is missed.
 */

import { request } from "./api.js";

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30000;
/** The server sends a comment at least every 15 s; three missing ones are a dead connection. */
const SILENCE_MS = 45000;
/** What these say will not change by asking again. */
const FINAL = new Set([400, 401, 403, 404, 422]);
const REFUSED = new Set([400, 422]);

/**
 * Follows `path` until `signal` aborts.
 *
 * onEvent({event, data, id}): `data` is the text of the event.
 * onState({state, problem?, seconds?}): "connecting", "open", "waiting" (tries again after
 * `seconds`), "ended" (a problem that trying again does not mend).
 */
export async function follow(path, { query, signal, onEvent, onState = () => {} }) {
  let lastId = "";
  let wait = FIRST_WAIT_MS;
  while (!signal.aborted) {
    let problem = null;
    onState({ state: "connecting" });
    try {
      await readOnce(path, { query, signal, lastId,
        onOpen: () => { wait = FIRST_WAIT_MS; onState({ state: "open" }); },
        onId: (id) => { lastId = id; }, onEvent });
    } catch (error) {
      if (signal.aborted) return;
      problem = error;
      // A place that the server does not know, as when its topic was made anew: begin with what comes now.
      if (REFUSED.has(error.status) && lastId) lastId = "";
      else if (FINAL.has(error.status)) return void onState({ state: "ended", problem });
    }
    if (signal.aborted) return;
    const pause = problem?.retryAfter ? problem.retryAfter * 1000 : wait * (0.75 + Math.random() / 2);
    onState({ state: "waiting", problem, seconds: Math.ceil(pause / 1000) });
    await sleep(pause, signal);
    wait = Math.min(wait * 2, LONGEST_WAIT_MS);
  }
}

async function readOnce(path, { query, signal, lastId, onOpen, onId, onEvent }) {
  const silence = new AbortController();
  const either = AbortSignal.any([signal, silence.signal]);
  const response = await request(path, { query, signal: either, accept: "text/event-stream",
    headers: lastId ? { "Last-Event-ID": lastId } : {} });
  onOpen();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const parser = new EventParser(lastId, onId, onEvent);
  for (;;) {
    const timer = setTimeout(() => silence.abort(), SILENCE_MS);
    try {
      const { done, value } = await reader.read();
      if (done) return;
      parser.push(value);
    } finally {
      clearTimeout(timer);
    }
  }
}

/**
 * The text/event-stream format: lines, an empty one ends an event, a colon first is a comment. An id
 * without data moves on as well: it stands for events that this stream's filter left out.
 */
export class EventParser {
  constructor(lastId, onId, onEvent) {
    this.rest = "";
    this.lastId = lastId;
    this.onId = onId;
    this.onEvent = onEvent;
    this.clear();
  }

  clear() {
    this.event = "message";
    this.data = [];
  }

  push(text) {
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop();
    for (const line of lines) this.line(line);
  }

  line(line) {
    if (line === "") {
      this.onId(this.lastId);
      if (this.data.length) this.onEvent({ event: this.event, data: this.data.join("\n"), id: this.lastId });
      return this.clear();
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.data.push(value);
    else if (name === "event") this.event = value;
    else if (name === "id") this.lastId = value;
  }
}

function sleep(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
