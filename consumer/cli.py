"""The command line's door: `python -m consumer.cli` and `consumer.cli:main`. What is behind it is in `commands/`."""

from consumer.commands.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
