"""The outcomes topic: its records, and which facts they say were sent."""
