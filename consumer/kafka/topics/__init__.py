"""The topics: their names, their rules, their ends, and how they are made."""
