-- Which entry of a banlist an image matched, and how the picture was turned against it: whoever
-- appeals is shown the entry, and an entry that matches too much has to be found.

CREATE OR REPLACE VIEW ${database}.hash_matches AS
SELECT
    image_id, event_time, feed,
    found.1 AS list, found.2 AS kind, found.3 AS distance, found.4 AS reason, found.5 AS action,
    CAST(verdict, 'String') AS verdict, content_id, uri,
    found.6 AS entry, found.7 AS turned
FROM ${database}.images_raw FINAL
ARRAY JOIN JSONExtract(
    hashes,
    'Array(Tuple(list String, kind String, distance UInt16, reason String, action String, entry String, turned String))'
) AS found
WHERE images_raw.hashes != '[]';
