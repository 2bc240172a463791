"""The SQL behind every route that shows images.

The verdict of each row is the one in force, by the same rule as the view `current_verdicts`: the
latest decision of a person, on the image itself or on another with the same bytes, else what the
row says. Everything that a caller says reaches ClickHouse as a parameter, never as text. Columns
that do not say in Arrow what they are (UInt32, Enum) are converted, so that the reader need not ask
for their types, which takes as long as the question itself.
"""

# ruff: noqa: S608 - only constants of this module are put together

from __future__ import annotations

TEXT_SHOWN = 4000
"""Characters of an image's text in a list; the findings have all of it."""

# A person's decisions, once by image and once by content; most images have none. The latest of
# them is the same with or without FINAL, since a repeat of one is equal to it.
_DECIDED = """
LEFT JOIN
(
    SELECT image_id, max((decided_at, decision_id, toString(decision))) AS latest
    FROM reviews_raw GROUP BY image_id
) AS own ON seen.image_id = own.image_id
LEFT JOIN
(
    SELECT content_id, max((decided_at, decision_id, toString(decision))) AS latest
    FROM reviews_raw WHERE content_id != '' GROUP BY content_id
) AS twin ON seen.content_id = twin.content_id
"""
_LATEST = "if(own.latest > twin.latest, own.latest.3, twin.latest.3)"
_IN_FORCE = f"""
    CAST(seen.verdict, 'String') AS written_verdict,
    CAST(seen.machine_verdict, 'String') AS machine_verdict,
    toString(seen.decided_by) AS written_by,
    {_LATEST} AS decision,
    multiIf(
        decision IN ('allow', 'block'), decision,
        decision = 'withdraw', machine_verdict, written_verdict
    ) AS verdict,
    multiIf(
        decision IN ('allow', 'block'), 'person',
        decision = 'withdraw', 'policy', written_by = 'person', 'person', 'policy'
    ) AS decided_by
"""

_SUMMARY = f"""
    seen.image_id AS image_id, toString(seen.feed) AS feed, seen.event_time AS moment,
    toUnixTimestamp64Milli(seen.event_time) AS event_time_ms,
    seen.content_id AS content_id, seen.uri AS uri, toString(seen.topic) AS topic,
    seen.kafka_partition AS kafka_partition, seen.kafka_offset AS kafka_offset,
    toUnixTimestamp64Milli(seen.kafka_time) AS kafka_time_ms, seen.version AS version,
    arrayFilter((rule, shadow) -> NOT shadow, seen.rules.rule, seen.rules.shadow) AS rules,
    arrayDistinct(
        arrayReverseSort((label, score) -> score, seen.objects.label, seen.objects.score)
    ) AS labels,
    substringUTF8(arrayStringConcat(seen.texts.text, '\\n'), 1, {TEXT_SHOWN}) AS text,
    toInt64(seen.width) AS width, toInt64(seen.height) AS height, seen.latency_ms AS latency_ms,
{_IN_FORCE}"""

_FINDINGS = """,
    toString(seen.format) AS format, seen.bytes AS bytes, seen.pdq AS pdq,
    seen.pdq_quality AS pdq_quality,
    seen.objects.label AS object_labels, seen.objects.score AS object_scores,
    seen.objects.x1 AS x1, seen.objects.y1 AS y1, seen.objects.x2 AS x2, seen.objects.y2 AS y2,
    seen.texts.text AS texts, seen.texts.score AS text_scores, seen.texts.quad AS text_quads,
    seen.texts.normal AS text_normals, seen.scores AS scores, seen.models AS models,
    toString(seen.policy) AS policy, seen.rules.rule AS rule_names,
    arrayMap(action -> toString(action), seen.rules.action) AS rule_actions,
    seen.rules.explanation AS rule_explanations, seen.rules.priority AS rule_priorities,
    seen.rules.severity AS rule_severities, seen.rules.category AS rule_categories,
    seen.rules.shadow AS rule_shadows, seen.audited_rules AS audited_rules,
    seen.hashes AS hashes, seen.similar AS similar, seen.terms AS terms,
    seen.redactions AS redactions, seen.faces AS faces, seen.extra AS extra,
    seen.metadata AS metadata
"""

_MAY_SEE = "(empty({allowed:Array(String)}) OR feed IN {allowed:Array(String)})"

# A repeat of an image lands on the same (feed, event_time, image_id); rows that a merge has not
# joined yet are told apart by FINAL, which is quick on the few granules that hold an id.
_OF_IDS = f"""
(
    SELECT * FROM images_raw FINAL
    WHERE image_id IN {{ids:Array(String)}} AND {_MAY_SEE}
        AND (feed, event_time) IN
        (
            SELECT feed, event_time FROM images_raw
            WHERE image_id IN {{ids:Array(String)}} AND {_MAY_SEE}
        )
) AS seen
"""

IMAGE = f"""
SELECT {_SUMMARY}{_FINDINGS}
FROM {_OF_IDS} {_DECIDED}
WHERE {{feed:String}} = '' OR feed = {{feed:String}}
ORDER BY version DESC, moment DESC, feed
LIMIT 1
"""
"""One image with all findings. Its id may be in use in several feeds: the record that reached Kafka
last is meant, unless `feed` says otherwise."""

SUMMARIES = f"""
SELECT {_SUMMARY}
FROM {_OF_IDS} {_DECIDED}
ORDER BY version DESC, moment DESC, feed
LIMIT 1 BY image_id, feed
"""
"""Images by their ids, one for each feed that has the id."""

_FILTERS = f"""
    {_MAY_SEE}
    AND ({{feed:String}} = '' OR feed = {{feed:String}})
    AND event_time >= fromUnixTimestamp64Milli({{since:Int64}}, 'UTC')
    AND event_time < fromUnixTimestamp64Milli({{until:Int64}}, 'UTC')
    AND ({{label:String}} = '' OR has(objects.label, {{label:String}}))
    AND
    (
        {{text:String}} = ''
        OR arrayExists(line -> positionCaseInsensitiveUTF8(line, {{text:String}}) > 0, texts.text)
        OR arrayExists(line -> positionCaseInsensitiveUTF8(line, {{text:String}}) > 0, texts.normal)
    )
    AND
    (
        {{after:String}} = ''
        OR (event_time, image_id, feed) <
            (
                fromUnixTimestamp64Milli({{after_ms:Int64}}, 'UTC'),
                {{after:String}}, {{after_feed:String}}
            )
    )
"""

KEYS = f"""
SELECT toString(feed) AS feed, toUnixTimestamp64Milli(event_time) AS event_time_ms, image_id
FROM images_raw FINAL
WHERE {_FILTERS}
ORDER BY event_time DESC, image_id DESC, feed DESC
LIMIT {{limit:UInt32}}
"""
"""The keys of a page of images. Whole rows are read in a second step, of the page alone."""

KEYS_BY_VERDICT = f"""
SELECT toString(seen.feed) AS feed, toUnixTimestamp64Milli(seen.event_time) AS event_time_ms,
    seen.image_id AS image_id,
{_IN_FORCE}
FROM
(
    SELECT feed, event_time, image_id, content_id, verdict, machine_verdict, decided_by
    FROM images_raw FINAL
    WHERE {_FILTERS}
) AS seen
{_DECIDED}
WHERE verdict = {{verdict:String}}
ORDER BY seen.event_time DESC, image_id DESC, feed DESC
LIMIT {{limit:UInt32}}
"""
"""The same, of images with one verdict, which takes a look at what people decided."""

OF_KEYS = f"""
SELECT {_SUMMARY}
FROM
(
    SELECT * FROM images_raw FINAL
    WHERE feed IN {{feeds:Array(String)}} AND image_id IN {{ids:Array(String)}}
        AND event_time >= fromUnixTimestamp64Milli({{since:Int64}}, 'UTC')
        AND event_time < fromUnixTimestamp64Milli({{until:Int64}}, 'UTC')
) AS seen
{_DECIDED}
"""
"""The rows of a page, and perhaps a few more that share names with some of it."""

HISTORY = f"""
SELECT
    toUnixTimestamp64Milli(decided_at) AS decided_at_ms, decision, toString(reviewer) AS reviewer,
    reason, machine_verdict, toString(policy) AS policy, rules, image_id, toString(feed) AS feed
FROM reviews
WHERE {_MAY_SEE}
    AND
    (
        image_id = {{id:String}}
        OR ({{content:String}} != '' AND content_id = {{content:String}})
    )
ORDER BY decided_at, decision_id
LIMIT 1000
"""
"""What people decided on an image, or on another with the same bytes, in feeds that the caller may
see."""

FAILURE = f"""
SELECT
    image_id, toString(feed) AS feed, toUnixTimestamp64Milli(event_time) AS event_time_ms, uri,
    toString(stage) AS stage, toString(reason) AS reason, detail,
    toInt64(attempt) AS attempt, version,
    toUnixTimestamp64Milli(ingested_at) AS ingested_at_ms
FROM failures_raw FINAL
WHERE image_id = {{id:String}} AND {_MAY_SEE} AND ({{feed:String}} = '' OR feed = {{feed:String}})
ORDER BY version DESC, ingested_at DESC
LIMIT 1
"""
"""The latest dead letter of an image."""

COPIES = f"""
SELECT content_id, uniqExact(feed, event_time, image_id) AS copies
FROM images_raw
WHERE content_id IN {{contents:Array(String)}} AND {_MAY_SEE}
GROUP BY content_id
"""

DECIDED_OTHERWISE = f"""
SELECT image_id FROM
(
    SELECT seen.image_id AS image_id, {_IN_FORCE}
    FROM
    (
        SELECT feed, event_time, image_id, content_id, verdict, machine_verdict, decided_by
        FROM images_raw FINAL
        WHERE {_MAY_SEE} AND
        (
            image_id IN (SELECT image_id FROM reviews)
            OR (
                content_id != ''
                AND content_id IN (SELECT content_id FROM reviews WHERE content_id != '')
            )
        )
    ) AS seen
    {_DECIDED}
)
WHERE verdict = {{verdict:String}} AND written_verdict != verdict
LIMIT {{limit:UInt32}}
"""
"""Images that people gave another verdict than their rows, and their points in Qdrant, say."""

FEED_TOTALS = f"""
SELECT
    toString(feed) AS feed, toInt64(sum(here)) AS images, max(latest) AS last_event_time_ms,
    sumIf(here, seen = 'review') AS review, sumIf(here, seen = 'block') AS block
FROM
(
    SELECT
        feed, toString(verdict) AS seen, count() AS here,
        toUnixTimestamp64Milli(max(event_time)) AS latest
    FROM images_raw
    WHERE {_MAY_SEE}
    GROUP BY feed, verdict
)
GROUP BY feed
ORDER BY last_event_time_ms DESC, feed
LIMIT 10000
"""
"""Feeds, from the sums that parts keep (projection `by_feed`): a repeat of an image counts until
its parts are merged, and verdicts are those that images came with."""

DECIDED_FEEDS = f"""
SELECT toString(feed) AS feed, decision, machine, toInt64(count()) AS images
FROM
(
    SELECT latest.3 AS feed, latest.4 AS decision, latest.5 AS machine
    FROM
    (
        SELECT
            max((decided_at, decision_id, toString(feed), toString(decision),
                toString(machine_verdict))) AS latest
        FROM reviews_raw
        WHERE {_MAY_SEE}
        GROUP BY image_id
    )
)
WHERE decision IN ('allow', 'block') AND decision != machine AND machine != 'none'
GROUP BY feed, decision, machine
"""
"""How many images of a feed people gave another verdict than the policy."""

FEEDS = f"""
SELECT
    feed, count() AS images, max(event_time_ms) AS last_event_time_ms,
    countIf(verdict = 'review') AS review, countIf(verdict = 'block') AS block
FROM
(
    SELECT toString(seen.feed) AS feed, toUnixTimestamp64Milli(seen.event_time) AS event_time_ms,
    {_IN_FORCE}
    FROM
    (
        SELECT feed, event_time, image_id, content_id, verdict, machine_verdict, decided_by
        FROM images_raw FINAL
        WHERE {_MAY_SEE}
    ) AS seen
    {_DECIDED}
)
GROUP BY feed
ORDER BY last_event_time_ms DESC, feed
LIMIT 10000
"""
