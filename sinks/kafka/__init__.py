"""Kafka as a sink: verdicts, findings, reviews and dead letters on topics of their own."""

from sinks.kafka.records import FindingsRecord, ReviewRecord, VerdictRecord
from sinks.kafka.settings import KafkaSettings, TopicNames
from sinks.kafka.sink import KafkaSink
from sinks.kafka.topics import ensure_topics

__all__ = [
    "FindingsRecord",
    "KafkaSettings",
    "KafkaSink",
    "ReviewRecord",
    "TopicNames",
    "VerdictRecord",
    "ensure_topics",
]
