"""What the views and their columns mean, for those who write SQL; docs/sql.md says more.

ClickHouse keeps no comments of a view's columns that outlast `CREATE OR REPLACE VIEW`, so they
stand here.
"""

from __future__ import annotations

from collections.abc import Mapping

VIEW_COMMENTS: Mapping[str, str] = {
    "images": "One row for each image: size, hashes, labels, text, scores, verdict, metadata.",
    "detections": "One row for each object in an image, with its box in pixels.",
    "texts": "One row for each line of text in an image.",
    "scores": "One row for each score of an image.",
    "current_verdicts": "The verdict in force for each image: a person's, else the policy's.",
    "verdicts": "What the policy said of each image, with the rules that fired.",
    "rules_fired": "One row for each rule that fired on an image, shadow rules included.",
    "failures": "Open dead letters: images that could not be analysed, and why.",
    "reviews": "Every decision of a person, withdrawn ones included.",
    "decisions": "The decision that stands for each image that people decided.",
    "hash_matches": "Entries of banlists that images match by their hash.",
    "similar_matches": "Exemplars of banlists that images are near to.",
    "term_matches": "Terms of term lists that were read in images.",
    "redactions": "Pieces of personal data that were taken out of text; never the data.",
    "rule_agreement": "What people made of the verdicts that they saw, by rule.",
    "rule_precision": "How often a rule is right, estimated from audit samples only.",
    "reviewer_agreement": "How often two reviewers agree, and Cohen's kappa.",
    "counts_hourly": "Images and objects by hour, feed and label.",
    "verdicts_hourly": "Images by hour, feed and verdict.",
    "latency_hourly": "Quantiles of the latency by hour and feed.",
    "drift": "Population stability index of scores and embeddings, the last day against a week.",
    "reliability": "What people decided, by how sure the scores were: for calibration.",
    "histograms_hourly": "Distributions of scores and embeddings by hour, in fine bins.",
}

COLUMN_COMMENTS: Mapping[str, Mapping[str, str]] = {
    "": {
        "image_id": "The producer's id, else one derived from the Kafka position.",
        "event_time": "When it was captured, else when it reached Kafka.",
        "feed": "The source that it belongs to.",
        "content_id": "SHA-256 of the bytes, 64 hexadecimal digits.",
        "uri": "Where the bytes were fetched; empty when they came on Kafka.",
        "verdict": "allow, review or block; none when the policy is switched off.",
        "policy": "Version of the policy.",
        "rules": "Rules that fired.",
        "rule": "Name of the rule.",
        "action": "What it asks for: allow, review or block.",
        "explanation": "Why it fired, in words.",
        "shadow": "Evaluated and recorded, with no part in the verdict.",
        "label": "Name of the kind of object.",
        "labels": "Names, each once.",
        "score": "From 0 to 1.",
        "scores": "Name to score.",
        "text": "As it was read, personal data taken out.",
        "latency_ms": "From the record on Kafka to the row.",
        "kafka_time": "When the record reached Kafka.",
        "ingested_at": "When the row was written.",
        "topic": "Kafka topic of the record.",
        "kafka_partition": "Kafka partition of the record.",
        "kafka_offset": "Kafka offset of the record.",
        "lane": "live or bulk.",
        "metadata": "The producer's own fields, as JSON: JSONExtractString(metadata, 'name').",
        "extra": "What operators of your own found, as JSON.",
        "models": "Operator to name@version.",
        "model": "name@version.",
        "width": "Of the upright image in pixels.",
        "height": "Of the upright image in pixels.",
        "list": "Name of the list.",
        "hour": "Beginning of the hour.",
        "images": "How many images.",
        "decision": "allow, block or withdraw.",
        "reviewer": "Who decided.",
        "reason": "Why.",
        "decided_at": "When it was decided.",
        "machine_verdict": "What the policy said.",
        "audited_rules": "Rules that the image was drawn for, to check them.",
    },
    "images": {
        "format": "Of the file: jpeg, png, webp, ….",
        "bytes": "Size of the file.",
        "pdq": "Perceptual hash (PDQ), 64 hexadecimal digits.",
        "pdq_quality": "How much structure the hash stands on, 0 to 100.",
        "shadow_rules": "Shadow rules that would have fired.",
    },
    "detections": {
        "object_index": "Number of the object in its image, from 1.",
        "x1": "Left, in pixels of the upright original.",
        "y1": "Top, in pixels; y grows downwards.",
        "x2": "Right, in pixels.",
        "y2": "Bottom, in pixels.",
    },
    "texts": {
        "line_index": "Number of the line, from 1.",
        "quad": "x and y of the four corners, clockwise from the start of the text.",
    },
    "failures": {
        "stage": "Where it failed: parse, fetch, decode, ….",
        "reason": "Why, as a stable code.",
        "detail": "Why, as a sentence.",
        "attempt": "How often it was tried.",
    },
    "rule_precision": {
        "audited": "Audited images.",
        "right": "Where people said the same.",
        "precision": "right divided by audited.",
        "low": "Lower end of Wilson's 95 % interval.",
        "high": "Upper end of it.",
    },
    "drift": {
        "psi": "Population stability index; over 0.25 is usually called a shift.",
        "by_chance": "What the index stays below 999 times in 1000 although nothing changed.",
        "current_images": "Images of the last 24 full hours.",
        "reference_images": "Images of the 168 hours before.",
    },
}
"""View to column to meaning; under the empty name what is the same in all views."""
