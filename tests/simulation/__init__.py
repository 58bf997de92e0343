"""A simulation for the relay's rules: one seed decides everything, and nothing waits, listens or runs beside it.

The production code that it drives: relay, ledger, pacing, ownership, membership, transactions, restore, low-water mark,
records, decoding and routing. Models of all else are in this folder: the event loop's clock, the three threads,
Kafka, Engage. wiring.py hands them to the real Relay.
`python -m tests.simulation --seed N --trace` replays a schedule; see scheduler.py for what may
happen and oracle.py for what must hold.
"""
