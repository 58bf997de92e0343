"""The edges towards Kafka: the consumer, the journal, the restore, and what the commands read there."""
