"""Metrics and traces: facts become numbers and spans."""
