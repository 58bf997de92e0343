"""The journal: the delay topic, written in transactions by one thread."""
