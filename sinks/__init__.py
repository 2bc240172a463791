"""Where findings go and are read back from: Kafka topics, ClickHouse, Qdrant."""
