"""How programs spell the name of a field: `order_id`, `order-id`, `OrderID` and `orderId` are one name."""

from __future__ import annotations


def plain(name: str) -> str:
    """Return what all spellings of a name have in common."""
    return name.replace("_", "").replace("-", "").lower()
