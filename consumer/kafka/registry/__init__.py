"""EDGE. A Schema Registry: schemas are fetched from it, and values are read by them. Needs the extra `registry`."""
