"""The relay at work: events in, what the ledger answers carried out, partitions that come and go."""
