-- What moderation adds to an image's row. Matches of lists, and faces, are JSON: their records gain
-- fields over time, few images have any, and a column apart for each field would cost every insert.
-- The views below spread them into rows with typed columns.

ALTER TABLE ${database}.images_raw
    ADD COLUMN IF NOT EXISTS `rules.priority` Array(Int32) AFTER `rules.explanation`,
    ADD COLUMN IF NOT EXISTS `rules.severity` Array(LowCardinality(String)) AFTER `rules.priority`,
    ADD COLUMN IF NOT EXISTS `rules.category` Array(LowCardinality(String)) AFTER `rules.severity`,
    ADD COLUMN IF NOT EXISTS `rules.shadow` Array(Bool) AFTER `rules.category`,
    ADD COLUMN IF NOT EXISTS `texts.normal` Array(String) AFTER `texts.quad`,
    ADD COLUMN IF NOT EXISTS hashes String DEFAULT '[]' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS similar String DEFAULT '[]' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS terms String DEFAULT '[]' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS faces String DEFAULT '[]' CODEC(ZSTD(1));

-- Shadow rules are no part of why a verdict is what it is: they stand in a column of their own.
CREATE OR REPLACE VIEW ${database}.images AS
SELECT
    image_id, event_time, feed, content_id, uri, lane,
    width, height, format, bytes, pdq, pdq_quality,
    arrayDistinct(objects.label) AS labels,
    arrayStringConcat(texts.text, '\n') AS text,
    scores,
    CAST(verdict, 'String') AS verdict,
    policy,
    arrayFilter((rule, shadow) -> NOT shadow, rules.rule, rules.shadow) AS rules,
    models, metadata, extra,
    topic, kafka_partition, kafka_offset, kafka_time, ingested_at, latency_ms,
    arrayFilter((rule, shadow) -> shadow, images_raw.rules.rule, images_raw.rules.shadow)
        AS shadow_rules
FROM ${database}.images_raw FINAL;

CREATE OR REPLACE VIEW ${database}.verdicts AS
SELECT
    image_id, event_time, feed,
    CAST(verdict, 'String') AS verdict,
    policy,
    arrayFilter((rule, shadow) -> NOT shadow, rules.rule, rules.shadow) AS rules,
    arrayFilter((explanation, shadow) -> NOT shadow, rules.explanation, rules.shadow)
        AS explanations,
    content_id, uri, latency_ms
FROM ${database}.images_raw FINAL
WHERE images_raw.verdict != 'none';

CREATE OR REPLACE VIEW ${database}.rules_fired AS
SELECT
    image_id, event_time, feed,
    rule, CAST(rule_action, 'String') AS action, explanation,
    CAST(verdict, 'String') AS verdict, policy, content_id, uri,
    priority, severity, category, shadow
FROM ${database}.images_raw FINAL
ARRAY JOIN
    rules.rule AS rule,
    rules.action AS rule_action,
    rules.explanation AS explanation,
    rules.priority AS priority,
    rules.severity AS severity,
    rules.category AS category,
    rules.shadow AS shadow;

CREATE OR REPLACE VIEW ${database}.hash_matches AS
SELECT
    image_id, event_time, feed,
    found.1 AS list, found.2 AS kind, found.3 AS distance, found.4 AS reason, found.5 AS action,
    CAST(verdict, 'String') AS verdict, content_id, uri
FROM ${database}.images_raw FINAL
ARRAY JOIN JSONExtract(
    hashes,
    'Array(Tuple(list String, kind String, distance UInt16, reason String, action String))'
) AS found
WHERE images_raw.hashes != '[]';

CREATE OR REPLACE VIEW ${database}.similar_matches AS
SELECT
    image_id, event_time, feed,
    found.1 AS exemplar, found.2 AS list, found.3 AS distance,
    CAST(verdict, 'String') AS verdict, content_id, uri
FROM ${database}.images_raw FINAL
ARRAY JOIN JSONExtract(
    similar, 'Array(Tuple(exemplar String, list String, distance Float64))'
) AS found
WHERE images_raw.similar != '[]';

CREATE OR REPLACE VIEW ${database}.term_matches AS
SELECT
    image_id, event_time, feed,
    found.1 AS list, found.2 AS term, found.3 AS language, found.4 AS line,
    CAST(verdict, 'String') AS verdict, content_id, uri
FROM ${database}.images_raw FINAL
ARRAY JOIN JSONExtract(
    terms, 'Array(Tuple(list String, term String, language String, line UInt32))'
) AS found
WHERE images_raw.terms != '[]';
