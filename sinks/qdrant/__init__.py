"""Qdrant as a sink, and as the place where similar pictures are found.

Import from the modules: `settings.QdrantSettings`, `sink.QdrantSink`, `reader.VectorReader`.
Nothing is imported here, because qdrant-client takes most of a second to load, and the settings,
which every command reads, do not need it.
"""
