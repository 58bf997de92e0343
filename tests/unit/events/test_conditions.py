"""A question that has one answer for every event is refused before the start: it mails everybody, or nobody."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from consumer.events.expressions import ExpressionError, compile_expression
from consumer.events.routing.rules import RouteRule


@pytest.mark.parametrize(
    ("when", "why"),
    [
        ("status == 'shipped' || 'sent'", "'sent' by itself is true for every event: write status == 'sent'"),
        ("body.a == 'b' && ('c' || x)", "'c' by itself is true for every event: write field == 'c'"),
        ("total > `5` || `7`", "`7` by itself is true for every event: write total == `7`"),
        ("!'gift'", "'gift' by itself is true for every event: write field == 'gift'"),
        (
            "status == 'new' || ['shipped', 'sent']",
            "['shipped', 'sent'] by itself is true for every event: write contains(['shipped', 'sent'], status)",
        ),
    ],
)
def test_a_value_that_stands_where_a_question_must_is_refused(when: str, why: str) -> None:
    with pytest.raises(ExpressionError) as raised:
        compile_expression(when, is_condition=True)
    assert str(raised.value) == f"{why}: `{when}`"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("!type == 'return'", "`!` comes before `==`: write type != 'return'"),
        ("a && !order.type != 'return'", "`!` comes before `!=`: write order.type == 'return'"),
        ("!cancelledAt == null", "`!` comes before `==`: write cancelledAt != `null`"),
        ("contains(tags, 'gift') == 'true'", "true or false is compared with 'true', and never equal to it"),
        ("a == 'x' == 'y'", "true or false is compared with 'y', and never equal to it"),
        ("total == `5` && length(lines) == '2'", "the number of length() is never equal to '2'"),
        ("number(total) != '5'", "the number of number() is never equal to '5'"),
        ("trim(code) == `5`", "the text of trim() is never equal to `5`"),
        (
            "parcels[].state == 'sent'",
            "a list (`(… | [0])` is its first item, contains() asks for any) is never equal to 'sent'",
        ),
        (
            "refs[?kind == 'state'].value != `20`",
            "a list (`(… | [0])` is its first item, contains() asks for any) is never equal to `20`",
        ),
        (
            "refs[?kind == 'state'].value | [0] == 'sent' && type == 'order'",
            "behind `|` stands a list, which has no field type: put brackets around (… | [0])",
        ),
        (
            "codes[] | [0] || code",
            "behind `|` stands a list, which has no field code: put brackets around (… | [0])",
        ),
        (
            "(refs[?kind == 'state'][0].value | [0]) == 'sent'",
            "`[…]` behind a filter looks into each item, which is no list: put brackets around (…[?…] | [0])",
        ),
        (
            "refs[?kind == 'state'][:1].value | [0]",
            "`[…]` behind a filter looks into each item, which is no list: put brackets around (…[?…] | [0])",
        ),
        ("lower(status) == 'Shipped'", "lower() never gives 'Shipped': write 'shipped'"),
        ("'se' != upper(market)", "upper() never gives 'se': write 'SE'"),
        ("status == 'a' | status == 'b'", "behind `|` nothing of the event is left: or is `||`"),
        ("a == 'x' && b == 'y' | c", "behind `|` nothing of the event is left: or is `||`"),
        ("'status' == 'shipped'", "'status' and 'shipped' are both values: a field stands without quotes"),
        (
            "status == ['shipped', 'sent']",
            "a list in brackets is equal to no text: write contains(['shipped', 'sent'], status),"
            " or the list in backticks if one is meant",
        ),
        (
            "['gone'] != a.b",
            "a list in brackets is equal to no text: write !contains(['gone'], a.b), or the list in backticks if one"
            " is meant",
        ),
        ("contains(status, ['a', 'b'])", "contains() takes the list first: contains(['a', 'b'], status)"),
        ("parcels[?state == 'sent' || 'gone'].id", "'gone' by itself is true for every event: write state == 'gone'"),
    ],
)
def test_a_comparison_with_one_answer_is_refused_wherever_it_stands(text: str, why: str) -> None:
    with pytest.raises(ExpressionError) as raised:
        compile_expression(text)
    assert str(raised.value) == f"{why}: `{text}`"


@pytest.mark.parametrize(
    "text",
    [
        "status == 'shipped' || status == 'sent'",
        "!(type == 'return')",
        "!cancelled && (kind || 'none') == 'shipped'",
        "contains(tags, 'gift') == `true`",
        "lower(status) == 'shipped'",
        "length(lines) == `2`",
        "trim(code) == null",
        "parcels[].state == `[]`",
        "(refs[?kind == 'state'].value | [0]) == 'sent' && type == 'order'",
        "type == 'order' && refs[?kind == 'state'].value | [0] == 'sent'",
        "parcels[] | length(@) > `1`",
        "parcels[] | sort_by(@, &at)[-1].state == 'sent'",
        "parcels[0].state == 'sent'",
        "a == 'x' && parcels | [0]",
        "contains(['shipped', 'sent'], status)",
        "[type, status] == ['order', 'shipped']",
        'tags == `["gift"]`',
        "test || `true`",
        "parcels[?state == 'sent']",
        "rows[?@[0] == 'RFF'][1]",
        "(segments[?tag == 'RFF'].elements[0][1] | [0]) == 'ON'",
        "(parcels[?state == 'sent'] | [0].no) == 'J1'",
        "lookup('markets', country) || null",
    ],
)
def test_a_question_is_not_refused(text: str) -> None:
    compile_expression(text, is_condition=True)


def test_what_an_expression_gives_may_be_a_text_beside_a_question() -> None:
    chosen = compile_expression("market == 'SE' && 'sweden' || 'norway'")
    assert [chosen.search({"market": market}) for market in ("SE", "NO")] == ["sweden", "norway"]


def test_a_route_with_such_a_condition_is_refused() -> None:
    with pytest.raises(ValidationError, match="'sent' by itself is true for every event"):
        RouteRule(when="status == 'shipped' || 'sent'", action="ConfirmShipment")
