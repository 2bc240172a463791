-- What was taken out of text before it was stored, and what term lists say of their terms.

ALTER TABLE ${database}.images_raw
    ADD COLUMN IF NOT EXISTS redactions String DEFAULT '[]' CODEC(ZSTD(1));

CREATE OR REPLACE VIEW ${database}.term_matches AS
SELECT
    image_id, event_time, feed,
    found.1 AS list, found.2 AS term, found.3 AS language, found.4 AS line,
    CAST(verdict, 'String') AS verdict, content_id, uri,
    found.5 AS start, found.6 AS end, found.7 AS category, found.8 AS severity
FROM ${database}.images_raw FINAL
ARRAY JOIN JSONExtract(
    terms,
    'Array(Tuple(list String, term String, language String, line UInt32, start UInt32, end UInt32, category String, severity String))'
) AS found
WHERE images_raw.terms != '[]';

CREATE VIEW IF NOT EXISTS ${database}.redactions AS
SELECT
    image_id, event_time, feed,
    found.1 AS kind, found.2 AS line, found.3 AS start, found.4 AS end
FROM ${database}.images_raw FINAL
ARRAY JOIN JSONExtract(
    images_raw.redactions, 'Array(Tuple(kind String, line UInt32, start UInt32, end UInt32))'
) AS found
WHERE images_raw.redactions != '[]';
