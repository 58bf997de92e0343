"""Routing: an event becomes one action, several, or a reason why not. Pure; router.py has the rules."""
