"""EDGE. Parked records: what a restore leaves in the delay topic, and how it is read back (core/parking.py)."""
