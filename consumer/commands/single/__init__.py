"""What the commands say of one dead letter, and of one pending action."""
