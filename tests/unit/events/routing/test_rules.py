"""A route as the user writes it: what is wrong with it is said at its key."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from consumer.events.routing.rules import RouteRule
from tests.unit.events.routing.cases import IN_ITS_DOCUMENT, PARCEL_ROUTE, Event


@pytest.mark.parametrize(
    "keys",
    [
        {"send": "with_document"},
        {**IN_ITS_DOCUMENT, "job_id": "job"},
        {**IN_ITS_DOCUMENT, "version_tag": "tag"},
        {**IN_ITS_DOCUMENT, "newer_than": "at"},
        {**IN_ITS_DOCUMENT, "change_status": "status"},
        {"send": "later"},
    ],
)
def test_a_route_that_sends_with_the_document_needs_one_and_nothing_else(keys: Event) -> None:
    with pytest.raises(ValidationError):
        RouteRule.model_validate({**PARCEL_ROUTE.model_dump(exclude_unset=True), **keys})


def test_an_error_in_a_rule_is_reported_at_its_key_with_its_place() -> None:
    with pytest.raises(ValidationError) as raised:
        RouteRule.model_validate({"when": "type = 'x'", "action": "", "data": "lenght(a)", "order_ids": "a"})
    assert {error["loc"]: error["msg"].partition(" at ")[0] for error in raised.value.errors()} == {
        ("when",): "Value error, Unknown token '='",
        ("action",): "String should have",
        ("data",): "Value error, there is no function lenght(), did you mean length()? (column 1): `lenght(a)`",
        ("order_ids",): "Extra inputs are not permitted",
    }
