"""What tests share: brokers, the relay in a thread or a process, Engage beside it, and who judges them.

Whether anything was lost or doubled is judged by two witnesses, and the relay is neither of them:
Engage's account (what was accepted, in which order) and the topics as a restart would read them (`books`).
Rules:
 1. Nothing sleeps: a test waits `until` something is seen, with a patience that a busy machine does not exhaust.
 2. Chance is seeded. A moment "in the middle" is a count of accepted actions, not a time.
 3. Nothing here knows a test.
"""
