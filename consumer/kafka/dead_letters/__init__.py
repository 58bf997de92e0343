"""Dead letters: listed and redriven (redrive.py), and counted while they wait for it (waiting.py)."""
