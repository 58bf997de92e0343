"""The relay at work: it takes events in, applies the ledger's effects, and adopts and hands over partitions."""
