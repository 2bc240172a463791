/** Addresses within the page: `#/NAME/ARGUMENT?query`. */

/** hrefOf("image", id), hrefOf("live", "", {feed: "gate-3"}): for links; `query` as in queryOf. */
export function hrefOf(name, argument = "", query = null) {
  const search = query instanceof URLSearchParams ? query : new URLSearchParams(
    Object.entries(query ?? {}).flatMap(([key, value]) => [value].flat()
      .filter((one) => one !== null && one !== undefined && one !== "").map((one) => [key, one])));
  const tail = search.toString();
  return `#/${name}${argument === "" ? "" : `/${encodeURIComponent(argument)}`}${tail && `?${tail}`}`;
}

/** Goes there: go("image", id). */
export function go(name, argument, query) {
  location.hash = hrefOf(name, argument, query);
}

/** The parts of a hash; without one it is the first view's. */
export function readAddress(hash) {
  const [path, tail = ""] = split(hash.replace(/^#\/?/, ""), "?");
  const [name, argument = ""] = split(path, "/");
  return { name: name || "live", argument: decoded(argument), query: new URLSearchParams(tail) };
}

function split(text, at) {
  const index = text.indexOf(at);
  return index < 0 ? [text] : [text.slice(0, index), text.slice(index + 1)];
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // A stray % that somebody typed; the API will say that there is no such image.
  }
}
