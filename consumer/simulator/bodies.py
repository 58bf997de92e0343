"""What a request's body holds: orders, changes, actions, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Document = dict[str, object]
Errors = list[tuple[str, str]]
Change = Literal["change-status", "change-delivery"]

# Docs: an order has one delivery of these four; what a change of status holds is an order's own pair.
CHANGED_FIELDS: dict[Change, tuple[str, ...]] = {
    "change-status": ("status", "externalStatus"),
    "change-delivery": ("method", "trackingNumber", "trackingUri", "deliveryDate"),
}
_NO_OBJECT = "the body is no JSON object"
_REQUIRED = "is required: text that is not empty"


@dataclass(frozen=True, slots=True)
class OrderAction:
    """An action that came with a document: Engage carries it out when that version is processed."""

    action: str
    language: str | None
    data: object


def order_action(document: Document) -> OrderAction | None:
    """Return the document's `orderAction`. The document has no errors."""
    action = document.get("orderAction")
    if not isinstance(action, dict):
        return None
    language = action.get("language")
    return OrderAction(str(action["action"]), language if isinstance(language, str) else None, action.get("data"))


def names_contact(document: Document) -> bool:
    """Say whether the document names a contact, known or not."""
    contact = document.get("contact")
    return isinstance(contact, dict) and bool(contact.get("matchKey"))


def minimal_document(order_id: str, *, contact: bool, changed_at: str | None) -> Document:
    """Make the document of an order that was submitted without one."""
    document: Document = {"orderId": order_id}
    if contact:
        document["contact"] = {"matchKey": "customer@example.com", "matchKeyType": "Email"}
    if changed_at is not None:
        document["lastChangedAt"] = changed_at
    return document


def apply_change(document: Document, change: Change, changed: Document) -> None:
    """Change the document. `changed` has no errors; what it holds besides the fields of such a change is ignored."""
    changed = {name: value for name, value in _changed(change, changed).items() if name in CHANGED_FIELDS[change]}
    if change == "change-status":
        document |= changed
    else:
        document["delivery"] = changed


def document_errors(document: Document | None) -> Errors:
    """Say what is wrong with an order."""
    if document is None:
        return [("", _NO_OBJECT)]
    errors: Errors = []
    contact, action = document.get("contact"), document.get("orderAction")
    if not _is_text(document.get("orderId")):
        errors.append(("orderId", _REQUIRED))
    if contact is not None and not isinstance(contact, dict):
        errors.append(("contact", "is no object"))
    if action is not None and not isinstance(action, dict):
        errors.append(("orderAction", "is no object"))
    elif action is not None:
        errors.extend((f"orderAction.{name}", why) for name, why in _name_and_language_errors(action))
    return errors


def change_errors(change: Change, changed: Document | None) -> Errors:
    """Say what is wrong with the body of a change."""
    if changed is None:
        return [("", _NO_OBJECT)]
    changed, known = _changed(change, changed), CHANGED_FIELDS[change]
    given = [name for name in known if name in changed]
    if not given:
        return [("", f"there is none of {', '.join(known)}")]
    return [(name, "is no text that is not empty") for name in given if not _is_text(changed[name])]


def _changed(change: Change, body: Document) -> Document:
    """Return the fields of the change.

    The documentation does not say whether a delivery's fields are in an object of that name.
    """
    delivery = body.get("delivery")
    return delivery if change == "change-delivery" and isinstance(delivery, dict) else body


def action_errors(request: Document | None) -> Errors:
    """Say what is wrong with an action."""
    if request is None:
        return [("", _NO_OBJECT)]
    errors = _name_and_language_errors(request)
    if not _is_text(request.get("versionTag")):
        errors.append(("versionTag", _REQUIRED))
    return errors


def _name_and_language_errors(action: Document) -> Errors:
    errors: Errors = []
    if not _is_text(action.get("action")):  # Docs: a text that the merchant determines
        errors.append(("action", _REQUIRED))
    if not isinstance(action.get("language"), str | None):
        errors.append(("language", "is no text"))
    return errors


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
