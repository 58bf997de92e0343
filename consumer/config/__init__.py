"""The user's file and environment as one validated model; every error with its line."""
