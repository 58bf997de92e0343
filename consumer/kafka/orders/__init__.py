"""What became of an order, read from the topics: its history, and whether everything adds up."""
