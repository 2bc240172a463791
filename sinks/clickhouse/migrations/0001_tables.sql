-- One row per image, one row per failure. The identity is (feed, event_time, image_id): a record that
-- is delivered again, or published again, lands on the same key and the row with the highest `version`
-- (the Kafka timestamp of the record; the last one written among equals) stays. Everything seen in an
-- image lies inside its row, because separate rows would leave stale boxes behind when a second look
-- finds fewer.

CREATE TABLE IF NOT EXISTS ${database}.images_raw
(
    image_id        String,
    event_time      DateTime64(3, 'UTC'),
    feed            LowCardinality(String),
    content_id      String,
    uri             String CODEC(ZSTD(1)),
    lane            LowCardinality(String),
    width           UInt32,
    height          UInt32,
    format          LowCardinality(String),
    bytes           UInt64,
    pdq             String,
    pdq_quality     UInt8,
    objects Nested
    (
        label       LowCardinality(String),
        score       Float32,
        x1          Float32,
        y1          Float32,
        x2          Float32,
        y2          Float32
    ),
    texts Nested
    (
        text        String,
        score       Float32,
        quad        Array(Float32)
    ),
    scores          Map(LowCardinality(String), Float32),
    models          Map(LowCardinality(String), String),
    verdict         Enum8('none' = 0, 'allow' = 1, 'review' = 2, 'block' = 3),
    policy          LowCardinality(String),
    rules Nested
    (
        rule        LowCardinality(String),
        action      Enum8('none' = 0, 'allow' = 1, 'review' = 2, 'block' = 3),
        explanation String
    ),
    metadata        String CODEC(ZSTD(1)),
    extra           String CODEC(ZSTD(1)),
    topic           LowCardinality(String),
    kafka_partition Int32,
    kafka_offset    Int64,
    kafka_time      DateTime64(3, 'UTC'),
    ingested_at     DateTime64(3, 'UTC'),
    latency_ms      Float64,
    version         UInt64,
    INDEX image_id_bloom image_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX content_id_bloom content_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(event_time)
ORDER BY (feed, event_time, image_id);

CREATE TABLE IF NOT EXISTS ${database}.failures_raw
(
    image_id        String,
    event_time      DateTime64(3, 'UTC'),
    feed            LowCardinality(String),
    stage           LowCardinality(String),
    reason          LowCardinality(String),
    detail          String CODEC(ZSTD(1)),
    attempt         UInt32,
    uri             String CODEC(ZSTD(1)),
    lane            LowCardinality(String),
    metadata        String CODEC(ZSTD(1)),
    topic           LowCardinality(String),
    kafka_partition Int32,
    kafka_offset    Int64,
    kafka_key       String,
    kafka_time      DateTime64(3, 'UTC'),
    ingested_at     DateTime64(3, 'UTC'),
    version         UInt64,
    INDEX image_id_bloom image_id TYPE bloom_filter(0.001) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(event_time)
ORDER BY (feed, event_time, image_id);
