-- Whether what comes in changes: distributions of scores and of embeddings by hour, and how far those of
-- the last day are from those of the week before.

-- A few random projections of each embedding, and the name of the projection (its kind, version and
-- seed): values of another name are not to be compared.
ALTER TABLE ${database}.images_raw
    ADD COLUMN IF NOT EXISTS projections Array(Float32),
    ADD COLUMN IF NOT EXISTS projection LowCardinality(String);

-- Counts in fine bins, from which any window's distribution can be added up. Bins of a score are 0.05
-- wide on the logit scale: most scores lie very near 0 or 1, and what is built on it (ranks) does not
-- depend on the scale. Bins of a projection are 0.02 wide.
CREATE VIEW IF NOT EXISTS ${database}.histograms_hourly AS
SELECT
    hour, feed, kind, model, name, bin,
    if(kind = 'score', 1 / (1 + exp(-(bin + 0.5) / 20)), (bin + 0.5) / 50) AS middle,
    count() AS images
FROM
(
    SELECT
        toStartOfHour(event_time) AS hour, toString(seen.feed) AS feed,
        entry.1 AS kind, entry.2 AS model, entry.3 AS name,
        toInt32(floor(
            if(
                kind = 'score',
                20 * log(greatest(entry.4, 1e-6) / greatest(1 - entry.4, 1e-6)),
                50 * greatest(least(entry.4, 20), -20)
            )
        )) AS bin
    FROM (SELECT * FROM ${database}.images_raw FINAL) AS seen
    ARRAY JOIN arrayConcat(
        arrayMap(
            (name, score) -> (
                'score',
                arrayStringConcat(
                    arraySort(mapValues(mapFilter(
                        (role, model) -> role = 'scores' OR startsWith(role, 'scores.'), seen.models
                    ))),
                    ', '
                ),
                toString(name), toFloat64(score)
            ),
            mapKeys(seen.scores), mapValues(seen.scores)
        ),
        arrayMap(
            (number, value) -> (
                'embedding', seen.models['embedding'],
                concat(toString(seen.projection), '/', toString(number)), toFloat64(value)
            ),
            arrayEnumerate(seen.projections), seen.projections
        )
    ) AS entry
)
GROUP BY hour, feed, kind, model, name, bin;

-- The population stability index of each score and projection: the last 24 full hours against the 168
-- before them, in tenths of the latter. Half an image is added to each tenth, so that an empty one gives
-- no infinity. by_chance is what the index stays below 999 times in 1000 although nothing changed:
-- (1/n + 1/m) times the 0.999 quantile of chi-squared with (tenths - 1) degrees of freedom (Yurdakul
-- and Naranjo 2020), the quantile by Wilson and Hilferty's approximation.
CREATE VIEW IF NOT EXISTS ${database}.drift AS
SELECT
    feed, kind, model, name, reference_images, current_images,
    arraySum(
        (was, now) -> (now - was) * log(now / was),
        arrayMap(n -> (n + 0.5) / (reference_images + 0.5 * tenths), reference_counts),
        arrayMap(n -> (n + 0.5) / (current_images + 0.5 * tenths), current_counts)
    ) AS psi,
    if(
        tenths < 2, 0.,
        (1 / reference_images + 1 / current_images) * (tenths - 1)
            * pow(1 - 2 / (9 * (tenths - 1)) + 3.090232 * sqrt(2 / (9 * (tenths - 1))), 3)
    ) AS by_chance,
    reference_mean, current_mean
FROM
(
    SELECT
        feed, kind, model, name,
        count() AS tenths,
        groupArray(reference_count) AS reference_counts,
        groupArray(current_count) AS current_counts,
        sum(reference_count) AS reference_images, sum(current_count) AS current_images,
        sum(reference_sum) / reference_images AS reference_mean,
        sum(current_sum) / current_images AS current_mean
    FROM
    (
        SELECT
            feed, kind, model, name, tenth,
            sum(in_reference) AS reference_count, sum(in_current) AS current_count,
            sum(in_reference * middle) AS reference_sum, sum(in_current * middle) AS current_sum
        FROM
        (
            -- A fine bin belongs to the tenth in which the middle of its images in the reference
            -- lies, so that equal values are never torn apart.
            SELECT
                feed, kind, model, name, middle, in_reference, in_current,
                least(9, intDiv(
                    10 * (2 * sum(in_reference) OVER up_to_here - in_reference),
                    greatest(2 * sum(in_reference) OVER everything, 1)
                )) AS tenth
            FROM
            (
                SELECT
                    feed, kind, model, name, bin, middle,
                    sumIf(images, hour < toStartOfHour(now()) - INTERVAL 24 HOUR) AS in_reference,
                    sumIf(images, hour >= toStartOfHour(now()) - INTERVAL 24 HOUR) AS in_current
                FROM ${database}.histograms_hourly
                WHERE hour >= toStartOfHour(now()) - INTERVAL 192 HOUR
                    AND hour < toStartOfHour(now())
                GROUP BY feed, kind, model, name, bin, middle
            )
            WINDOW
                up_to_here AS (
                    PARTITION BY feed, kind, model, name ORDER BY bin
                    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
                ),
                everything AS (PARTITION BY feed, kind, model, name)
        )
        GROUP BY feed, kind, model, name, tenth
    )
    GROUP BY feed, kind, model, name
    HAVING reference_images > 0 AND current_images > 0
);
