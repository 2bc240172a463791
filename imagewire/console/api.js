/**
 * The HTTP API as the console uses it: one fetch, one kind of error, one place for the key.
 *
 * The key stays in sessionStorage, so that it ends with the tab, and travels only as a header, since
 * addresses stand in logs. Every failure is a `Problem` with what application/problem+json told:
 * status, kind, title, detail, request id.
 */

const KEY = "imagewire.key";
/** Nothing that the console asks for takes so long to begin to be answered; SQL says for itself how long it may. */
const ANSWERED_WITHIN_MS = 60_000;
const listeners = new Set();

export class Problem extends Error {
  constructor({ status = 0, kind = "", title, detail = "", requestId = "", errors = [], retryAfter = null }) {
    super(title);
    this.name = "Problem";
    Object.assign(this, { status, kind, title, detail, requestId, errors, retryAfter });
  }
}

/** The key in use, or an empty string. */
export function apiKey() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

/** Keeps `key` until the tab is closed; an empty one forgets it. */
export function setApiKey(key) {
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch {
    throw new Problem({ title: "The key cannot be kept", detail: "This browser forbids the page to store anything." });
  }
}

/** Calls `listener(problem)` whenever the API asks for a key or for another one. */
export function onKeyWanted(listener) {
  listeners.add(listener);
}

/**
 * The address of a path of the API: address`v1/images/${id}` escapes what it is given.
 * Relative, so that the console also works below a prefix of a proxy.
 */
export function address(parts, ...values) {
  return parts.reduce((path, part, index) => path + encodeURIComponent(values[index - 1]) + part);
}

/** `{feed: "a", label: ["x", "y"], cursor: null}` → `?feed=a&label=x&label=y` */
export function queryOf(query) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    for (const one of [value].flat()) {
      if (one !== null && one !== undefined && one !== "") search.append(name, one);
    }
  }
  const text = search.toString();
  return text && `?${text}`;
}

/**
 * Asks the API and returns the Response, whose status is below 400.
 *
 * `json` becomes the body; `body` is sent as it is (FormData, Blob). Raises `Problem`, also when no
 * answer begins `within` so many milliseconds; when `signal` aborts, the AbortError of fetch passes
 * through, so that a view that was left says nothing.
 */
export async function request(path, { method = "GET", query, json, body, headers = {}, signal, accept = "application/json", within = ANSWERED_WITHIN_MS } = {}) {
  const sent = new Headers({ Accept: accept, ...headers });
  const key = apiKey();
  if (key) sent.set("Authorization", `Bearer ${key}`);
  if (json !== undefined) sent.set("Content-Type", "application/json");
  // Not AbortSignal.timeout, which would also cut off an answer that has begun and is long.
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), within);
  let response;
  try {
    response = await fetch(new URL(path + queryOf(query), document.baseURI), {
      method, headers: sent, body: json === undefined ? body : JSON.stringify(json), credentials: "same-origin",
      signal: signal ? AbortSignal.any([signal, patience.signal]) : patience.signal,
    });
  } catch (error) {
    if (error.name === "AbortError" && !patience.signal.aborted) throw error;
    throw new Problem({ kind: "unreachable", title: "Imagewire does not answer", detail: patience.signal.aborted
      ? `No answer within ${Math.round(within / 1000)} seconds. It may have too much to do; try again.`
      : "The address that served this page cannot be reached. Is imagewire still running?" });
  } finally {
    clearTimeout(timer);
  }
  if (response.status < 400) return response;
  const problem = await problemOf(response);
  if (response.status === 401) for (const listener of listeners) listener(problem);
  throw problem;
}

async function problemOf(response) {
  let told = {};
  try {
    told = await response.json();
  } catch {
    // A proxy's page in HTML, or nothing at all; the status must do.
  }
  return new Problem({
    status: response.status,
    kind: String(told.type ?? "").replace(/^urn:imagewire:problem:/, ""),
    title: told.title ?? `Imagewire answered ${response.status} ${response.statusText}`.trim(),
    detail: typeof told.detail === "string" ? told.detail : "",
    requestId: response.headers.get("X-Request-Id") ?? told.instance ?? "",
    errors: Array.isArray(told.errors) ? told.errors : [],
    retryAfter: Number(response.headers.get("Retry-After")) || null,
  });
}

/** The JSON of an answer; a Problem where it broke off, or is a page of somebody in between. */
export async function jsonOf(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ kind: "unreadable", title: "The answer cannot be read", requestId: response.headers.get("X-Request-Id") ?? "",
      detail: "It broke off, or something between this page and Imagewire, most often a proxy, answered in its place." });
  }
}

/** GET, and the JSON of the answer. */
export async function get(path, query, options = {}) {
  return jsonOf(await request(path, { query, ...options }));
}

/** POST of `json`, and the JSON of the answer (null if there is none). */
export async function post(path, json, options = {}) {
  const response = await request(path, { method: "POST", json, ...options });
  return response.status === 204 ? null : jsonOf(response);
}
