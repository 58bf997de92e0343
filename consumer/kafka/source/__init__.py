"""Reading the source: the consumer, its membership of the group, and where it starts."""
