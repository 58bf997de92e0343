"""Whose topics and offsets these are, and what becomes of a source that is another one now."""
