-- How many images each feed has, without reading them: sums by feed and verdict that every part keeps
-- beside its rows. Merges, erasures and expiry make those of the parts that they write anew, so the sums
-- are as true as the parts; an image that came again counts twice until its two parts are merged.

ALTER TABLE ${database}.images_raw MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild';

ALTER TABLE ${database}.images_raw ADD PROJECTION IF NOT EXISTS by_feed
(
    SELECT feed, verdict, count(), max(event_time) GROUP BY feed, verdict
);

ALTER TABLE ${database}.images_raw MATERIALIZE PROJECTION IF EXISTS by_feed;
