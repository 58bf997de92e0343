"""Runs all that writes files: `python -m tools.generators` (`--check`: only compare; exit 1 where a file has drifted).

In one process, as most of a generator's time is to import the settings and the contracts, which several need.
"""

from __future__ import annotations

import sys

from tools import chart_values, configuration_reference, cookbook, dashboard, log_reference, schemas, version

# In this sequence: the version is put last into what the others have written.
GENERATORS = (schemas, configuration_reference, cookbook, dashboard, chart_values, log_reference, version)


def main(arguments: list[str]) -> int:
    """Run each, also where one has found something."""
    codes: list[int] = [generator.main(arguments) for generator in GENERATORS]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
