-- What scores are worth by what people decided: of the images in one tenth of a score, how many a person
-- gave the label. A decision to block that names no label says nothing about any, and is left out, as
-- `imagewire calibrate` does. Images that were drawn at random stand for all (audited); those that were
-- looked at because they were doubtful stand for what is doubtful.
CREATE VIEW IF NOT EXISTS ${database}.reliability AS
SELECT
    model, name, audited, tenth,
    count() AS images, avg(score) AS mean_score, countIf(has(labels, name)) / images AS true_share
FROM
(
    SELECT
        decided.labels AS labels, decided.audited AS audited,
        seen.model AS model, seen.name AS name, seen.score AS score,
        toUInt8(least(9, floor(10 * seen.score))) AS tenth
    FROM
    (
        SELECT image_id, labels, notEmpty(audited_rules) AS audited
        FROM ${database}.decisions
        WHERE decision = 'allow' OR notEmpty(labels)
    ) AS decided
    INNER JOIN
    (
        SELECT
            image_id, entry.1 AS name, entry.2 AS score,
            arrayStringConcat(
                arraySort(mapValues(mapFilter(
                    (role, model) -> role = 'scores' OR startsWith(role, 'scores.'), models
                ))),
                ', '
            ) AS model
        FROM ${database}.images_raw FINAL
        ARRAY JOIN arrayMap(
            (name, score) -> (toString(name), toFloat64(score)), mapKeys(scores), mapValues(scores)
        ) AS entry
    ) AS seen ON decided.image_id = seen.image_id
)
GROUP BY model, name, audited, tenth;
