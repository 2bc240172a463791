-- What people decide. A decision is stored once for each (image_id, decided_at, decision_id), however
-- often its record is delivered, and none is ever replaced by another: the history stays. What the
-- policy said of the image is kept beside it, so that rules can still be judged once the image itself
-- has expired.

ALTER TABLE ${database}.images_raw
    ADD COLUMN IF NOT EXISTS decided_by LowCardinality(String) AFTER policy,
    ADD COLUMN IF NOT EXISTS machine_verdict
        Enum8('none' = 0, 'allow' = 1, 'review' = 2, 'block' = 3) DEFAULT verdict AFTER decided_by,
    ADD COLUMN IF NOT EXISTS audited_rules Array(LowCardinality(String)) AFTER machine_verdict;

CREATE TABLE IF NOT EXISTS ${database}.reviews_raw
(
    image_id        String,
    content_id      String,
    feed            LowCardinality(String),
    decision        Enum8('allow' = 1, 'block' = 3, 'withdraw' = 4),
    reviewer        LowCardinality(String),
    reason          String CODEC(ZSTD(1)),
    labels          Array(LowCardinality(String)),
    decided_at      DateTime64(3, 'UTC'),
    decision_id     String,
    machine_verdict Enum8('none' = 0, 'allow' = 1, 'review' = 2, 'block' = 3),
    policy          LowCardinality(String),
    rules           Array(LowCardinality(String)),
    audited_rules   Array(LowCardinality(String)),
    topic           LowCardinality(String),
    kafka_partition Int32,
    kafka_offset    Int64,
    kafka_time      DateTime64(3, 'UTC'),
    ingested_at     DateTime64(3, 'UTC'),
    INDEX content_id_bloom content_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(ingested_at)
PARTITION BY toYYYYMM(decided_at)
ORDER BY (image_id, decided_at, decision_id);

CREATE OR REPLACE VIEW ${database}.reviews AS
SELECT
    image_id, content_id, feed, CAST(decision, 'String') AS decision, reviewer, reason, labels,
    decided_at, decision_id, CAST(machine_verdict, 'String') AS machine_verdict,
    policy, rules, audited_rules, kafka_time, ingested_at
FROM ${database}.reviews_raw FINAL;

-- The decision that stands for each image that somebody decided; a withdrawn one stands no more.
CREATE OR REPLACE VIEW ${database}.decisions AS
SELECT
    image_id,
    latest.3 AS content_id, latest.4 AS feed, latest.5 AS decision, latest.6 AS reviewer,
    latest.7 AS reason, latest.8 AS labels, latest.1 AS decided_at, latest.2 AS decision_id,
    latest.9 AS machine_verdict, latest.10 AS policy, latest.11 AS rules,
    latest.12 AS audited_rules, history
FROM
(
    SELECT
        image_id,
        argMax(
            (
                decided_at, decision_id, content_id, feed, decision, reviewer, reason, labels,
                machine_verdict, policy, rules, audited_rules
            ),
            (decided_at, decision_id)
        ) AS latest,
        count() AS history
    FROM ${database}.reviews
    GROUP BY image_id
)
WHERE latest.5 != 'withdraw';

-- The verdict in force for each image: that of a person if there is one, on the image itself or on
-- another with the same bytes, else the policy's.
CREATE OR REPLACE VIEW ${database}.current_verdicts AS
SELECT
    image_id, event_time, feed,
    multiIf(latest.3 IN ('allow', 'block'), latest.3, latest.3 = 'withdraw', machine, written)
        AS verdict,
    multiIf(latest.3 IN ('allow', 'block'), 'person', latest.3 = 'withdraw', 'policy', writer)
        AS decided_by,
    machine AS machine_verdict,
    latest.4 AS reviewer, latest.2 AS decision_id, latest.1 AS decided_at,
    policy, rules, content_id, uri
FROM
(
    SELECT
        seen.image_id AS image_id, seen.event_time AS event_time, seen.feed AS feed,
        if(own.latest > twin.latest, own.latest, twin.latest) AS latest,
        CAST(seen.machine_verdict, 'String') AS machine,
        -- What was in force when the row was written: the decision itself may have expired since.
        CAST(seen.verdict, 'String') AS written,
        if(seen.decided_by = 'person', 'person', 'policy') AS writer,
        seen.policy AS policy,
        arrayFilter((rule, shadow) -> NOT shadow, seen.rules.rule, seen.rules.shadow) AS rules,
        seen.content_id AS content_id, seen.uri AS uri
    FROM (SELECT * FROM ${database}.images_raw FINAL) AS seen
    LEFT JOIN
    (
        SELECT
            image_id, max((decided_at, decision_id, decision, CAST(reviewer, 'String'))) AS latest
        FROM ${database}.reviews
        GROUP BY image_id
    ) AS own ON seen.image_id = own.image_id
    LEFT JOIN
    (
        SELECT
            content_id, max((decided_at, decision_id, decision, CAST(reviewer, 'String'))) AS latest
        FROM ${database}.reviews
        WHERE content_id != ''
        GROUP BY content_id
    ) AS twin ON seen.content_id = twin.content_id
    WHERE seen.machine_verdict != 'none'
);

-- What people made of the verdicts they looked at, by rule. They look at what is doubtful or was
-- complained of, so these are no estimates for a rule as a whole: see rule_precision for those.
CREATE OR REPLACE VIEW ${database}.rule_agreement AS
SELECT
    policy, rule, machine_verdict,
    count() AS decided,
    countIf(decision = 'allow') AS allowed,
    countIf(decision = 'block') AS blocked,
    if(machine_verdict = 'review', NULL, countIf(decision = machine_verdict)) AS agreed,
    if(machine_verdict = 'review', NULL, countIf(decision != machine_verdict)) AS overturned,
    overturned / decided AS overturn_rate
FROM ${database}.decisions
ARRAY JOIN if(empty(rules), ['(no rule)'], arrayMap(rule -> toString(rule), rules)) AS rule
WHERE machine_verdict != 'none'
GROUP BY policy, rule, machine_verdict;

-- How often a rule's verdicts are right, from audit samples only: images drawn at random among all
-- that the rule decided, whatever people think of them, so that the share is an unbiased estimate.
-- The interval is Wilson's for 95 % (z = 1.959964), which also holds for small samples and shares
-- near 0 and 1.
CREATE OR REPLACE VIEW ${database}.rule_precision AS
SELECT
    rule, machine_verdict, audited, right, right / audited AS precision,
    greatest(0, (precision + 1.920729 / audited - margin) / (1 + 3.841459 / audited)) AS low,
    least(1, (precision + 1.920729 / audited + margin) / (1 + 3.841459 / audited)) AS high,
    policies
FROM
(
    SELECT
        rule, machine_verdict,
        count() AS audited,
        countIf(decision = machine_verdict) AS right,
        arraySort(groupUniqArray(toString(policy))) AS policies,
        1.959964 * sqrt(
            (right / audited) * (1 - right / audited) / audited
            + 3.841459 / (4 * audited * audited)
        ) AS margin
    FROM ${database}.decisions
    ARRAY JOIN audited_rules AS rule
    WHERE machine_verdict IN ('allow', 'block')
    GROUP BY rule, machine_verdict
);

-- Whether reviewers agree, where two decided the same image: each one's latest decision on it.
-- Cohen's kappa is what they agree beyond chance, 1 for always; without a value where both always
-- say the same one thing, since chance would explain that too.
CREATE OR REPLACE VIEW ${database}.reviewer_agreement AS
SELECT
    reviewer_a, reviewer_b, images, agreed, agreed / images AS agreement,
    (a_blocks * b_blocks + (images - a_blocks) * (images - b_blocks)) / (images * images) AS chance,
    if(chance = 1, NULL, (agreement - chance) / (1 - chance)) AS kappa
FROM
(
    SELECT
        a.reviewer AS reviewer_a, b.reviewer AS reviewer_b,
        count() AS images,
        countIf(a.decision = b.decision) AS agreed,
        countIf(a.decision = 'block') AS a_blocks,
        countIf(b.decision = 'block') AS b_blocks
    FROM
    (
        SELECT
            image_id, toString(reviews.reviewer) AS reviewer,
            argMax(reviews.decision, (decided_at, decision_id)) AS decision
        FROM ${database}.reviews AS reviews
        GROUP BY image_id, reviewer
        HAVING decision != 'withdraw'
    ) AS a
    INNER JOIN
    (
        SELECT
            image_id, toString(reviews.reviewer) AS reviewer,
            argMax(reviews.decision, (decided_at, decision_id)) AS decision
        FROM ${database}.reviews AS reviews
        GROUP BY image_id, reviewer
        HAVING decision != 'withdraw'
    ) AS b ON a.image_id = b.image_id
    WHERE a.reviewer < b.reviewer
    GROUP BY reviewer_a, reviewer_b
);
