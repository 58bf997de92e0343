"""The sections of the configuration file: one module for each, with its keys and what is wrong with a value."""
