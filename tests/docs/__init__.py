"""The documents' snippets, commands and links, held against the program."""
