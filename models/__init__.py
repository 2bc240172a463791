"""Networks and their weights: catalogue, verification, loading, precision and device.

This is the lowest layer: it knows nothing of Kafka, frames or stores.
"""
