-- What was written in the last minutes, whatever its event time: throughput and latency are asked for
-- every few seconds. Parts are written in the order of time, so a range for each few granules leaves
-- nearly all of them out. Rows from before stay without it until they expire, which only costs time.

ALTER TABLE ${database}.images_raw
    ADD INDEX IF NOT EXISTS ingested_at_range ingested_at TYPE minmax GRANULARITY 4;

ALTER TABLE ${database}.failures_raw
    ADD INDEX IF NOT EXISTS ingested_at_range ingested_at TYPE minmax GRANULARITY 4;
