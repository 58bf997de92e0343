"""What an operator asks a running relay: probes, metrics, the status page."""
