"""The delay topic's records, and the dead letters, as bytes. Nothing else knows how they are written and read."""
