"""The contracts that cross a boundary: events in, Engage's API, the delay topic, dead letters.

Each module holds pydantic models; the `*.schema.json` files beside them are generated from them by
`python -m tools.schemas` (JSON Schema 2020-12) and a test fails when they have drifted.
"""

DIALECT = "https://json-schema.org/draft/2020-12/schema"  # of every JSON Schema that is published
