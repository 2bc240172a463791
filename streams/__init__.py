"""The Kafka side: wire records, agents, fetching, batching, the pipeline and the offset ledger."""
