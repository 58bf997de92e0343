"""What a topic's values look like before they are events: one module for each format. Pure."""
