"""Where an action's versionTag comes from, as its event has it.

A change that the relay makes first comes first, then the event's own tag, the job that Engage works on, the document
that the relay posts first, and the order itself.
"""

from __future__ import annotations

from consumer.events.routing.routes import Route
from consumer.events.routing.scope import Scope
from consumer.events.routing.values import UnusableError, identifier, moment_of, object_of, text_of, value_of
from schemas.pending_action import FromChange, FromDocument, FromEvent, FromJob, FromOrder, TagSource, WithDocument

ORDER_ACTION = "orderAction"
"""Field of an order document. Engage carries this action out when it processes the document."""
_ORDER_ID = "orderid"  # another one, in lower case: Engage may read names in whatever case


def tag_source_of(route: Route, scope: Scope, order_id: str) -> TagSource:
    """Return the first source that gives something."""
    if route.send == "with_document":
        document = _document(route, scope, order_id)
        if document is None:
            raise UnusableError(f"order: {route.order} gave nothing, and the action travels in it")
        return WithDocument(document=document)
    if (change := _change(route, scope)) is not None:
        return change
    version_tag = text_of("version_tag", route.version_tag, scope, integers=True)
    if version_tag is not None:
        return FromEvent(version_tag=version_tag)
    job_id = identifier("job_id", route.job_id, scope)
    if job_id is not None:
        return FromJob(job_id=job_id)
    if (document := _document(route, scope, order_id)) is not None:
        return FromDocument(document=document)
    return FromOrder(newer_than=moment_of("newer_than", route.newer_than, scope, route.time_zone))


def _document(route: Route, scope: Scope, order_id: str) -> dict[str, object] | None:
    document = object_of("order", route.order, scope)
    for name, value in (document or {}).items():
        if value is not None and names_order_action(name):
            raise UnusableError(f"order: {route.order} gave an {ORDER_ACTION}, and the route sends an action, too")
        # Engage would change that order, and mail its customer where the action travels in the document.
        if name.lower() == _ORDER_ID and _is_another(value, order_id):
            raise UnusableError(f"order: {route.order} gave the document of another order than `order_id`")
    return document


def _is_another(named: object, order_id: str) -> bool:
    """Tell whether a document's `orderId` is certainly another one's: a text or an integer, and not the same."""
    return isinstance(named, str | int) and not isinstance(named, bool) and str(named) != order_id


def _change(route: Route, scope: Scope) -> FromChange | None:
    """Return the change that comes first. It takes the place of a document, of which there must be none, then."""
    found: tuple[str, FromChange] | None = None
    for key, change, expression in route.changes:
        body = object_of(key, expression, scope)
        if body is not None and found is not None:
            raise UnusableError(f"{key}: {expression} gave a second change, after {found[0]}")
        if body is not None:
            found = (key, FromChange(change=change, body=body))
    if found is None:
        return None
    if value_of("order", route.order, scope) is not None:
        raise UnusableError(f"order: {route.order} gave a document, besides {found[0]}")
    return found[1]


def names_order_action(field: str) -> bool:
    """Tell whether this field of a document is its `orderAction`, in whatever case: Engage may read it so, too."""
    return field.lower() == ORDER_ACTION.lower()
