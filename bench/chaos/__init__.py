"""What becomes of published images when everything around the worker fails.

`python -m bench.chaos` (or `make chaos`) runs the embedded stack on Apache Kafka under a producer
that keeps publishing, breaks one thing after another, and accounts for every image: each must end
exactly once in ClickHouse, in Qdrant and on the verdict topic, or exactly once as a dead letter.
"""
