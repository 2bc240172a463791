/** Figures and times as people read them, in the reader's own language and time zone. */

const NUMBER = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric" });

/** 12345 → "12,345" */
export const whole = (value) => (Number.isFinite(value) ? NUMBER.format(value) : "–");
/** 12345 → "12.3K" */
export const compact = (value) => (Number.isFinite(value) ? SHORT.format(value) : "–");
/** 0.87345 → "0.873" */
export const score = (value) => (Number.isFinite(value) ? value.toFixed(value !== 0 && Math.abs(value) < 0.01 ? 4 : 3) : "–");
/** 0.1234 → "12.3 %" */
export const percent = (value) => (Number.isFinite(value) ? `${(value * 100).toFixed(value < 0.1 ? 1 : 0)} %` : "–");

/** Images each second: one decimal while small. */
export function rate(value) {
  if (!Number.isFinite(value)) return "–";
  return value >= 100 ? NUMBER.format(value) : value === 0 ? "0" : value.toFixed(value >= 10 ? 0 : 1);
}

/** 83 → "83 ms", 1234 → "1.2 s", 754000 → "12.6 min" */
export function milliseconds(value) {
  if (!Number.isFinite(value)) return "–";
  if (value < 1000) return `${value < 10 ? Number(value.toFixed(1)) : Math.round(value)} ms`;
  if (value < 120000) return `${(value / 1000).toFixed(value < 10000 ? 1 : 0)} s`;
  if (value < 7200000) return `${(value / 60000).toFixed(0)} min`;
  return value < 172800000 ? `${(value / 3600000).toFixed(0)} h` : `${(value / 86400000).toFixed(0)} days`;
}

export function bytes(value) {
  if (!Number.isFinite(value)) return "–";
  if (value < 1000) return `${value} B`;
  const units = ["kB", "MB", "GB", "TB"];
  const power = Math.min(Math.floor(Math.log10(value) / 3), units.length);
  return `${(value / 1000 ** power).toFixed(1)} ${units[power - 1]}`;
}

/** "14:03:22", for today; "12 Mar 2026, 14:03:22" before. */
export function time(text) {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return text ? String(text) : "–";
  const clock = CLOCK.format(date);
  return date.toDateString() === new Date().toDateString() ? clock : `${DAY.format(date)}, ${clock}`;
}

/** "now", "12 s ago", "3 min ago", then the time; the time also of what lies ahead, by a clock that is wrong. */
export function ago(text, now = Date.now()) {
  const passed = (now - new Date(text).getTime()) / 1000;
  if (Number.isNaN(passed)) return "–";
  if (passed < -90) return time(text);
  if (passed < 2) return "now";
  if (passed < 90) return `${Math.round(passed)} s ago`;
  if (passed < 5400) return `${Math.round(passed / 60)} min ago`;
  if (passed < 129600) return `${Math.round(passed / 3600)} h ago`;
  return time(text);
}

/** 1 → "1 image", 2 → "2 images" */
export const counted = (count, one, many = `${one}s`) => `${whole(count)} ${count === 1 ? one : many}`;

/** Labels as people read them: "FACE_FEMALE" → "face female"; those that are words already stay. */
export const labelWords = (label) => (/^[A-Z0-9_]+$/.test(label) ? label.toLowerCase() : label).replaceAll("_", " ");
