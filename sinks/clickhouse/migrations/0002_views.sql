-- What analysts read. Every view reads FINAL, so it is exact at once, however often records were
-- delivered. The hourly views are plain views too: a materialized view over raw inserts counts replays
-- twice, and one refreshed on a timer rescans the table every minute whether somebody looks or not.

CREATE VIEW IF NOT EXISTS ${database}.images AS
SELECT
    image_id, event_time, feed, content_id, uri, lane,
    width, height, format, bytes, pdq, pdq_quality,
    arrayDistinct(objects.label) AS labels,
    arrayStringConcat(texts.text, '\n') AS text,
    scores,
    CAST(verdict, 'String') AS verdict,
    policy,
    rules.rule AS rules,
    models, metadata, extra,
    topic, kafka_partition, kafka_offset, kafka_time, ingested_at, latency_ms
FROM ${database}.images_raw FINAL;

CREATE VIEW IF NOT EXISTS ${database}.detections AS
SELECT
    image_id, event_time, feed,
    object_index, label, score, x1, y1, x2, y2,
    width, height, CAST(verdict, 'String') AS verdict, models['objects'] AS model, content_id, uri
FROM ${database}.images_raw FINAL
ARRAY JOIN
    arrayEnumerate(objects.label) AS object_index,
    objects.label AS label,
    objects.score AS score,
    objects.x1 AS x1,
    objects.y1 AS y1,
    objects.x2 AS x2,
    objects.y2 AS y2;

CREATE VIEW IF NOT EXISTS ${database}.texts AS
SELECT
    image_id, event_time, feed,
    line_index, text, score, quad,
    CAST(verdict, 'String') AS verdict, content_id, uri
FROM ${database}.images_raw FINAL
ARRAY JOIN
    arrayEnumerate(texts.text) AS line_index,
    texts.text AS text,
    texts.score AS score,
    texts.quad AS quad;

CREATE VIEW IF NOT EXISTS ${database}.scores AS
SELECT
    image_id, event_time, feed,
    name, score,
    CAST(verdict, 'String') AS verdict, content_id, uri
FROM ${database}.images_raw FINAL
ARRAY JOIN
    mapKeys(scores) AS name,
    mapValues(scores) AS score;

CREATE VIEW IF NOT EXISTS ${database}.verdicts AS
SELECT
    image_id, event_time, feed,
    CAST(verdict, 'String') AS verdict,
    policy,
    rules.rule AS rules,
    rules.explanation AS explanations,
    content_id, uri, latency_ms
FROM ${database}.images_raw FINAL
WHERE images_raw.verdict != 'none';

CREATE VIEW IF NOT EXISTS ${database}.rules_fired AS
SELECT
    image_id, event_time, feed,
    rule, CAST(rule_action, 'String') AS action, explanation,
    CAST(verdict, 'String') AS verdict, policy, content_id, uri
FROM ${database}.images_raw FINAL
ARRAY JOIN
    rules.rule AS rule,
    rules.action AS rule_action,
    rules.explanation AS explanation;

-- Open failures: those that no later record of the same image has made good, whatever event time it
-- gave (it may be just the time that was wrong). A success of the same record counts as later, since
-- a record is only seen again when its first try was not finished.
CREATE VIEW IF NOT EXISTS ${database}.failures AS
SELECT
    failed.image_id AS image_id, failed.event_time AS event_time, failed.feed AS feed,
    failed.stage AS stage, failed.reason AS reason, failed.detail AS detail,
    failed.attempt AS attempt, failed.uri AS uri, failed.lane AS lane,
    failed.metadata AS metadata,
    failed.topic AS topic, failed.kafka_partition AS kafka_partition,
    failed.kafka_offset AS kafka_offset, failed.kafka_key AS kafka_key,
    failed.kafka_time AS kafka_time, failed.ingested_at AS ingested_at
FROM (SELECT * FROM ${database}.failures_raw FINAL) AS failed
LEFT JOIN
(
    SELECT feed, image_id, max(version) AS version, true AS found
    FROM ${database}.images_raw
    WHERE (feed, image_id) IN (SELECT feed, image_id FROM ${database}.failures_raw)
    GROUP BY feed, image_id
) AS succeeded
ON failed.feed = succeeded.feed AND failed.image_id = succeeded.image_id
WHERE NOT ifNull(succeeded.found AND succeeded.version >= failed.version, false);

CREATE VIEW IF NOT EXISTS ${database}.counts_hourly AS
SELECT
    toStartOfHour(event_time) AS hour, feed, label,
    uniqExact(image_id, event_time) AS images, count() AS objects
FROM ${database}.detections
GROUP BY hour, feed, label;

CREATE VIEW IF NOT EXISTS ${database}.verdicts_hourly AS
SELECT toStartOfHour(event_time) AS hour, feed, verdict, count() AS images
FROM ${database}.verdicts
GROUP BY hour, feed, verdict;

-- By the hour in which records reached Kafka: pictures may have been taken years before.
CREATE VIEW IF NOT EXISTS ${database}.latency_hourly AS
SELECT
    toStartOfHour(kafka_time) AS hour, feed, count() AS images,
    quantileExact(0.5)(latency_ms) AS p50_ms,
    quantileExact(0.9)(latency_ms) AS p90_ms,
    quantileExact(0.99)(latency_ms) AS p99_ms,
    max(latency_ms) AS max_ms
FROM ${database}.images_raw FINAL
GROUP BY hour, feed;
