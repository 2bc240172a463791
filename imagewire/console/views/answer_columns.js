/** What a column of an answer is, by ClickHouse's type: how it is aligned, sorted, written and drawn. */

const WRAPPED = /^(?:Nullable|LowCardinality)\((.*)\)$/;

/** The type without `Nullable` and `LowCardinality`, which say nothing about what a value means. */
export function plainType(type) {
  let plain = String(type ?? "");
  for (let found = WRAPPED.exec(plain); found !== null; found = WRAPPED.exec(plain)) plain = found[1];
  return plain;
}

/** @returns {"number"|"time"|"nested"|"text"} */
export function kindOf(type) {
  const plain = plainType(type);
  if (/^(u?int|bfloat|float|double|halffloat|decimal)\d*/i.test(plain)) return "number";
  if (/^(date|timestamp)/i.test(plain)) return "time";
  if (/^(array|map|tuple|nested|json|object|variant|dynamic|list|large_list|struct)/i.test(plain)) return "nested";
  return "text";
}

/** Milliseconds since 1970 of a time as ClickHouse or RFC 3339 writes it; NaN if it is none. */
export function millis(value) {
  if (value === null || value === undefined) return NaN;
  const text = String(value).trim().replace(" ", "T");
  if (/^\d{4}-\d\d-\d\d$/.test(text)) return Date.parse(`${text}T00:00:00Z`);
  return Date.parse(/(Z|[+-]\d\d:?\d\d)$/.test(text) ? text : `${text}Z`);
}

/** The number in a value; 64-bit integers may come as text, so that none loses its last digits. */
export function numberIn(value) {
  return value === null || value === undefined || value === "" ? NaN : Number(value);
}

/** The text of a cell, whole. */
export function cellText(value) {
  if (value === null || value === undefined) return "NULL";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** Compares two values of a column for sorting; what is missing comes last either way. */
export function comparator(kind, descending) {
  const key = { number: numberIn, time: millis }[kind];
  const sign = descending ? -1 : 1;
  const words = new Intl.Collator(undefined, { numeric: true });
  return (a, b) => {
    const [left, right] = key ? [key(a), key(b)] : [a, b];
    const missing = (value) => Number(value === null || value === undefined || Number.isNaN(value));
    const absent = missing(left) - missing(right);
    if (absent || missing(left)) return absent;
    return sign * (key ? left - right : words.compare(cellText(left), cellText(right)));
  };
}
