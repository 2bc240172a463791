"""Qdrant as a sink, and as the place where similar pictures are found."""

from sinks.qdrant.reader import ImageNotFoundError, Similar, VectorReader
from sinks.qdrant.settings import QdrantSettings
from sinks.qdrant.sink import QdrantSink

__all__ = ["ImageNotFoundError", "QdrantSettings", "QdrantSink", "Similar", "VectorReader"]
