"""The control topic: what a person asks of all instances, written by commands and followed by each relay."""
