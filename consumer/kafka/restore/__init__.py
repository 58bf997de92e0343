"""Restoring an assignment: what its delay partition holds, and where the source continues."""
