"""`engage-relay run`: what a relay stands on, its wiring, and the process around it."""
