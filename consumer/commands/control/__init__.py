"""Commands that tell all instances something through the control topic."""
