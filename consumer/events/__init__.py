"""From the bytes of a record to an action, or why not. Pure."""
