//! A small, truly replicated Kafka-compatible cluster.
