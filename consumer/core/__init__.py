"""Which actions are open and when to ask: the ledger, outcomes, pacing. Pure."""
