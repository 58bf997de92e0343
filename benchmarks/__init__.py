"""What the relay costs, measured against a real broker: `make bench`."""
