"""Which actions are pending, and which of them is next. `ledger.py` has the rules, and says what the others are for."""
