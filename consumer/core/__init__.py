"""What is owed to Engage and when to ask: the ledger, outcomes, pacing. Pure."""
