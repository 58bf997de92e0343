"""A simulated world for the relay's rules: one seed decides everything, and nothing waits, listens or runs beside it.

The production code that it drives: relay, ledger, pacing, ownership, membership, transactions, restore, low-water mark,
records, decoding and routing. Stand-ins, all in this folder: the event loop's clock, the three threads, Kafka, Engage.
`python -m tests.simulation --seed N --trace` replays a schedule; see world.py for what may happen and what must hold.
"""
