/**
 * Questions to begin with, and those that people keep. Kept ones stay in this browser: they may hold
 * what somebody looked for, which is nobody else's business.
 */

const KEPT = "imagewire.sql.kept";
const DRAFT = "imagewire.sql.draft";

/** @type {{name: string, query: string}[]} */
export const EXAMPLES = [
  {
    name: "Seen most in the last day",
    query: `SELECT label, count() AS objects, uniqExact(image_id) AS images,
  round(avg(score), 2) AS mean_score
FROM detections
WHERE event_time > now() - INTERVAL 1 DAY
GROUP BY label
ORDER BY objects DESC
LIMIT 20`,
  },
  {
    name: "Images by the minute, by verdict",
    query: `SELECT toStartOfMinute(kafka_time) AS minute, verdict, count() AS images
FROM images
WHERE kafka_time > now() - INTERVAL 3 HOUR
GROUP BY minute, verdict
ORDER BY minute, verdict`,
  },
  {
    name: "Blocked, and why",
    query: `SELECT event_time, feed, image_id, rule, explanation
FROM rules_fired
WHERE verdict = 'block' AND NOT shadow
ORDER BY event_time DESC
LIMIT 50`,
  },
  {
    name: "Rules by what they cause",
    query: `SELECT rule, action, if(shadow, 'shadow', 'in force') AS state, count() AS images
FROM rules_fired
GROUP BY rule, action, state
ORDER BY images DESC`,
  },
  {
    name: "Share blocked, by hour",
    query: `SELECT hour, round(sumIf(images, verdict = 'block') / sum(images), 4) AS blocked
FROM verdicts_hourly
WHERE hour >= now() - INTERVAL 7 DAY
GROUP BY hour
ORDER BY hour`,
  },
  {
    name: "Pictures with a word in them",
    query: `SELECT image_id, event_time, text, round(score, 2) AS score
FROM texts
WHERE positionCaseInsensitiveUTF8(text, 'sale') > 0
ORDER BY event_time DESC
LIMIT 50`,
  },
  {
    name: "The same bytes under several ids",
    query: `SELECT content_id, count() AS copies, groupArray(5)(image_id) AS some_ids
FROM images
WHERE content_id != ''
GROUP BY content_id
HAVING copies > 1
ORDER BY copies DESC
LIMIT 20`,
  },
  {
    name: "Failures by cause",
    query: `SELECT stage, reason, count() AS images, any(detail) AS detail
FROM failures
GROUP BY stage, reason
ORDER BY images DESC`,
  },
  {
    name: "Latency by hour",
    query: `SELECT hour, max(p50_ms) AS p50_ms, max(p99_ms) AS p99_ms, sum(images) AS images
FROM latency_hourly
WHERE hour >= now() - INTERVAL 1 DAY
GROUP BY hour
ORDER BY hour`,
  },
  {
    name: "What people overturned",
    query: `SELECT rule, machine_verdict, decided, overturned, round(overturn_rate, 3) AS rate
FROM rule_agreement
ORDER BY overturned DESC NULLS LAST`,
  },
];

/** Questions that were kept in this browser, the latest first. */
export function keptQueries() {
  const kept = read(KEPT, []);
  if (!Array.isArray(kept)) return [];
  return kept.filter((each) => typeof each?.name === "string" && typeof each?.query === "string");
}

/** Keep a question; one of the same name is replaced. Whether there was room. */
export function keepQuery(name, query) {
  const others = keptQueries().filter((each) => each.name !== name);
  return write(KEPT, [{ name, query }, ...others].slice(0, 100));
}

export function dropQuery(name) {
  write(KEPT, keptQueries().filter((each) => each.name !== name));
}

/** What stood in the editor when it was left. */
export function draft() {
  const text = read(DRAFT, null);
  return typeof text === "string" && text.trim() !== "" ? text : EXAMPLES[0].query;
}

export function keepDraft(text) {
  write(DRAFT, text);
}

function read(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? otherwise;
  } catch {
    return otherwise; // storage is switched off, or holds what another version wrote
  }
}

function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}
