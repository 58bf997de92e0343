"""The relay at work: it takes events in, applies what the ledger answers, and follows the assignment of partitions."""
