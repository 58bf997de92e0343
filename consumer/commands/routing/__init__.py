"""`route`: what would become of an event."""
