"""JMESPath: errors are found when it is compiled; what it gives is the library's result, and JSON."""

from __future__ import annotations

import json
import re
import time

import jmespath
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from consumer.events.decoding import decode
from consumer.events.expressions import EvaluationError, ExpressionError, compile_expression, is_true, paths_of
from consumer.events.numbers import written

NAMES = st.sampled_from(["a", "b", '"c d"'])
TEXTS = st.sampled_from(["''", "'x'", '`"x"`'])
JSON_LITERALS = st.sampled_from(["`0`", "`1`", "`true`", "`false`", "`null`", "`[]`", "`{}`", '`{"a": 1}`'])
EXPRESSIONS = st.recursive(
    NAMES | TEXTS | JSON_LITERALS,
    lambda inner: st.one_of(
        st.builds("{}.{}".format, NAMES, NAMES),
        st.builds("({}).{}".format, inner, NAMES),
        st.builds("({} || {})".format, inner, inner),
        st.builds("({} && {})".format, inner, inner),
        st.builds("({} == {})".format, inner, inner),
        st.builds("({} != {})".format, inner, inner),
        st.builds("!({})".format, inner),
        st.builds("({})[0]".format, inner),
        st.builds("{{a: {}, b: {}}}".format, inner, inner),
        st.builds("({}).{{a: {}}}".format, inner, inner),
    ),
    max_leaves=5,
)
VALUES = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 1.5, "", "x", "y"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", "c d"]), inner, max_size=3),
    max_leaves=6,
)
EVENTS = st.dictionaries(st.sampled_from(["a", "b", "c d"]), VALUES, max_size=3)


# What is refused, though JMESPath takes it.
REFUSED = ("names a field here", "are both values", "true or false is compared", "`!` comes before")


@given(EXPRESSIONS, EVENTS)
def test_what_is_compiled_gives_what_the_library_gives(text: str, event: dict[str, object]) -> None:
    assume("(!(" not in text)  # (!a).b is null for every event, and read as !(a.b)
    try:
        compiled = compile_expression(text)
    except ExpressionError as error:
        assume(not any(why in str(error) for why in REFUSED))
        raise
    assert json.dumps(compiled.search(event)) == json.dumps(jmespath.search(text, event))


@given(VALUES)
def test_truth_is_the_librarys(value: object) -> None:
    assert is_true(value) is (jmespath.search("a && `1` || `2`", {"a": value}) == 1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("type ==", "ends too early: `type ==`"),
        ("type = 'a'", "Unknown token '=' at column 6: `type = 'a'`; equal is `==`"),
        (
            "language-tag",
            "Unknown token '-' at column 9: `language-tag`; a name with it stands in double quotes, a text in single"
            " quotes",
        ),
        (
            "type == “a”",
            "Unknown token “ at column 9: `type == “a”`; a text stands in straight single quotes",
        ),
        ("a or b", "unexpected or at column 3: `a or b`; write `||`"),
        (
            r"split(line, '\t')[1]",
            r"split(): in single quotes \t is a backslash and a letter; write it in backticks, "
            r"""`"\t"`: `split(line, '\t')[1]`""",
        ),
        ("a AND b", "unexpected AND at column 3: `a AND b`; write `&&`"),
        ("a & b", "unexpected & at column 3: `a & b`; write `&&`"),
        ("a is null", "unexpected is at column 3: `a is null`; write `== null`"),
        ("a <> 'b'", "unexpected > at column 4: `a <> 'b'`; not equal is `!=`"),
        ("'SE-' + id", "Unknown token + at column 7: `'SE-' + id`; join('', [a, b]) joins texts"),
        ("a ? b : c", "Unknown token ? at column 3: `a ? b : c`; write a && b || c"),
        ("kund.språk", "Unknown token å at column 9: `kund.språk`; a name with it stands in double quotes"),
        ("x.@id", "unexpected @ at column 3: `x.@id`; a name with it stands in double quotes"),
        (
            "$.type",
            "Unknown token $ at column 1: `$.type`; a field stands without it, a name that has one in double quotes",
        ),
        ("a > 100", "unexpected 100 at column 5: `a > 100`; a number stands in backticks, `100`"),
        ("a..b", "unexpected . at column 3: `a..b`"),
        ("a b", "unexpected b at column 3: `a b`"),
        ("type == 'a", "Unclosed ' delimiter at column 9: `type == 'a`"),
        (
            "starts_wiht(type, 'a')",
            "there is no function starts_wiht(), did you mean starts_with()? (column 1): `starts_wiht(type, 'a')`",
        ),
        ("regex(a, 'x')", "there is no function regex(), write match(text, 'pattern') (column 1): `regex(a, 'x')`"),
        ("int(a)", "there is no function int(), write number(text) (column 1): `int(a)`"),
        ("format(a)", "there is no function format() (column 1): `format(a)`"),
        ("not a", "unexpected a at column 5: `not a`; write `!`"),
        ("@type", "unexpected type at column 2: `@type`; a name with it stands in double quotes"),
        ("a['b']", "unexpected b at column 3: `a['b']`; a field of an object stands behind a dot, data.type"),
        ("a.'b-c'", "unexpected b-c at column 3: `a.'b-c'`; behind a dot a name stands in double quotes or in none"),
        (
            "/order/id",
            "Unknown token / at column 1: `/order/id`; a path is written order.id, and a name with it stands in double"
            " quotes",
        ),
        ("soap:id", "unexpected : at column 5: `soap:id`; a name with it stands in double quotes"),
        ("a == 1.5", "unexpected 1 at column 6: `a == 1.5`; a number stands in backticks, `1.5`"),
        ("a == None", "`None` names a field here: what is not there is `null` (column 6): `a == None`"),
        ("a == TRUE", "`TRUE` names a field here: JSON stands in backticks, `true` (column 6): `a == TRUE`"),
        ("a || length()", "length() takes 1 arguments (column 6): `a || length()`"),
        ("not_null()", "not_null() takes at least 1 arguments (column 1): `not_null()`"),
        ("type == `shipped`", "text between backticks is JSON; write a string in single quotes"),
        ("a[::0]", "a slice's step cannot be 0: `a[::0]`"),
        ('`"\\ud800"`', "a literal is not JSON (half a surrogate pair, NaN, or nested too deep)"),
        ('{"\\ud800": a}', "a literal is not JSON (half a surrogate pair, NaN, or nested too deep)"),
        ("`NaN`", "a literal is not JSON (half a surrogate pair, NaN, or nested too deep)"),
        ("!" * 40 + "a", "is nested deeper than 32 levels"),
        ("(" * 5000 + "a", "is nested too deep"),
    ],
)
def test_an_error_is_found_when_it_is_compiled_and_says_where(text: str, why: str) -> None:
    with pytest.raises(ExpressionError) as raised:
        compile_expression(text)
    assert str(raised.value) == why


NAMES_A_FIELD = "`{0}` names a field here: a text stands in single quotes, '{0}' (the field is event.{0})"
NO_NUMBER = "{0} is no number here: a number stands in backticks, `{1}`, and number() makes one"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('contains("shipped", status)', NAMES_A_FIELD.format("shipped")),
        ('not_null(status, "unknown")', NAMES_A_FIELD.format("unknown")),
        ('status || "unknown"', NAMES_A_FIELD.format("unknown")),
        ("['a', \"b\"]", NAMES_A_FIELD.format("b")),
        ('{language: "sv"}', NAMES_A_FIELD.format("sv")),
        ('"sv"', NAMES_A_FIELD.format("sv")),
        ('total > "100"', NO_NUMBER.format("100", "100")),
        ("total >= '99.50'", NO_NUMBER.format("99.50", "99.50")),
        ("'1,5' < total", NO_NUMBER.format("1,5", "1.5")),
        ("lines[?quantity > '1']", NO_NUMBER.format("1", "1")),
    ],
)
def test_what_cannot_mean_what_it_says_is_refused(text: str, why: str) -> None:
    with pytest.raises(ExpressionError) as raised:
        compile_expression(text)
    assert str(raised.value).startswith(why)


@pytest.mark.parametrize(
    "text",
    [
        "\"status\" == 'shipped'",
        'order."status"',
        '"order".status',
        '"order-id"',
        'lines[?"shipped"]',
        '{"language": locale}',
        "day > '2026-01-01'",
        "total > `100`",
        "number(total) > `100`",
    ],
)
def test_quotes_where_only_a_name_can_be_meant_are_none_of_them(text: str) -> None:
    compile_expression(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("length(a)", "failed: length() was given a number"),
        ("a < b", "failed: it compares a text with a number; number() makes one of a text"),
        ("to_number('1e999')", "gave something that is not JSON"),
        ("{x: [to_number('-1e999')]}", "gave something that is not JSON"),
        ("&a", "gave something that is not JSON"),
    ],
)
def test_what_fails_on_an_event_says_so_without_contents(text: str, why: str) -> None:
    with pytest.raises(EvaluationError) as raised:
        compile_expression(text).search({"a": 4711, "b": "secret"})
    assert str(raised.value) == why


@given(st.text(st.sampled_from("ab.[]{}()&|!='`\"*@:,0- <>?length"), max_size=20), EVENTS)
def test_no_text_crashes_it(text: str, event: dict[str, object]) -> None:
    try:
        found = compile_expression(text).search(event)
    except (ExpressionError, EvaluationError):
        return
    json.dumps(found, allow_nan=False)


# Functions beside JMESPath's


def found(text: str, event: object, tables: dict[str, dict[str, str]] | None = None) -> object:
    return compile_expression(text, tables).search(event)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("split(gid, '/')[-1]", "1001"),
        ("replace(name, '#', '')", "9999"),
        (r'split(columns, `"\t"`)[1]', "b"),
        ("trim(spaces)", "A-1"),
        ("lower(locale)", "sv-se"),
        ("upper(locale)", "SV-SE"),
        ("match(gid, '^gid://[a-z]+/Order/[0-9]+$')", True),
        ("match(gid, 'Customer')", False),
        ("match(absent, 'x')", False),
        ("json(payload).orderId", "A-1"),
        ("json(payload).total", 199.0),
        ("number(amount)", 199.0),
        ("number(padded)", 471123),
        ("to_number(padded)", 471123),
        ("number('+007.50')", 7.5),
        ("number('-000')", 0),
        ("sum(prices)", 200.02),
        ("sum(`[]`)", 0),
        ("base64(wrapped)", '{"orderId":"Ä-1"}'),
        ("json(base64(wrapped)).orderId", "Ä-1"),
        ("base64('w4TDvw')", "Äÿ"),
        ("base64('Pz8_Pj4-')", "???>>>"),
        ("base64('w4TD\r\nvw==\r\n')", "Äÿ"),
        ("base64(absent)", None),
        ("decimal('TZA=', `3`)", 19.856),
        ("decimal('/w==', `0`)", -1),
        ("decimal(absent, `2`)", None),
        ("decimal('TZA=', absent)", None),
        ("lookup('languages', country)", "sv-SE"),
        ("lookup('languages', `7`)", "seven"),
        ("lookup('languages', absent)", None),
        ("lookup('languages', name)", None),
        ("time(micros)", "2023-07-26T10:22:47.048491Z"),
        ("time(days, 'd')", "2026-11-03T00:00:00Z"),
        ("time(local, 'Europe/Stockholm')", "2026-11-03T09:30:08Z"),
        *((f"{call}", None) for call in ("split(absent, '/')", "trim(absent)", "json(absent)", "time(absent)")),
        ("replace(absent, 'a', 'b')", None),
        ("to_string(price)", "199.00"),
    ],
)
def test_functions_for_what_events_hold(text: str, value: object) -> None:
    event = decode(
        b'{"gid":"gid://shopify/Order/1001","name":"#9999","spaces":" A-1 ","locale":"sv-SE","amount":"199.00",'
        b'"payload":"{\\"orderId\\":\\"A-1\\",\\"total\\":199.00}","country":"SE","micros":1690366967048491,'
        b'"columns":"a\\tb",'
        b'"prices":[199.00,0.01,1.010],'
        b'"padded":"0000471123","wrapped":"eyJvcmRlcklkIjoiw4QtMSJ9",'
        b'"days":20760,"local":"2026-11-03T10:30:08","price":199.00}'
    )
    assert found(text, event, {"languages": {"SE": "sv-SE", "7": "seven"}}) == value


@pytest.mark.parametrize(
    "call", ["json(at)", "number(at)", "base64(at)", "time(at)", "time(at, 'ms', 'UTC')", "json(at).orderId"]
)
@pytest.mark.parametrize("blank", ["", "  ", "\t\n"])
def test_a_blank_text_holds_nothing_as_many_programs_write_it(call: str, blank: str) -> None:
    assert found(call, {"at": blank}) is None
    assert found("{at: time(at), n: number(at), more: 'J1'}", {"at": blank}) == {"at": None, "n": None, "more": "J1"}
    assert found("decimal(at, `2`)", {"at": ""}) is None


def test_numbers_keep_their_text_through_functions_and_projections() -> None:
    event = decode(b'{"lines":[{"price":199.00},{"price":1E3}],"payload":"{\\"a\\":0.10}","amount":"2.50"}')
    text = "{prices: lines[].price, max: max(lines[].price), inner: json(payload).a, amount: number(amount)}"
    assert written(found(text, event)) == b'{"prices":[199.00,1E3],"max":1E3,"inner":0.10,"amount":2.50}'


def test_a_sum_of_prices_is_a_price() -> None:
    event = decode(b'{"lines":[{"price":0.10},{"price":0.20},{"price":199.00}],"pieces":[1,2]}')
    text = "{total: sum(lines[].price), pieces: sum(pieces), none: sum(lines[?price > `500`].price)}"
    assert written(found(text, event)) == b'{"total":199.30,"pieces":3,"none":0}'


def test_a_decimal_of_debezium_is_written_with_all_its_digits() -> None:
    assert written(found("decimal(total, `2`)", {"total": "TbwA"})) == b"50944.00"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("json(secret)", "failed: json() was given a text that is not JSON"),
        ("number(secret)", "failed: number() was given a text that is not a number"),
        *(
            (f"number('{wrong}')", "failed: number() was given a text that is not a number")
            for wrong in ("+-1", "1_000", "1,5", "007e999", "0x1F", "--1", "NaN")
        ),
        ("base64(secret)", "failed: base64() was given a text that is not a text in base64"),
        ("base64('/w==')", "failed: base64() was given a text that is not a text in base64"),
        ("time(secret)", "failed: time() was given a text that is not a time"),
        ("time(local)", "failed: time() was given a text that is a time without a zone"),
        ("decimal(secret, `2`)", "failed: decimal() was given no base64"),
        ("decimal('TZA=', `2.5`)", "failed: decimal() was given no base64"),
        ("decimal('TZA=', `20000`)", "failed: decimal() was given no base64"),
        ("split(secret, '')", "failed: split() needs a separator"),
        ("join('-', [`null`, 'SE'])", "failed: join() was given null"),
        ("lower(`7`)", "failed: lower() was given a number"),
    ],
)
def test_a_function_that_fails_says_so_without_contents(text: str, why: str) -> None:
    with pytest.raises(EvaluationError) as raised:
        found(text, {"secret": "4711", "local": "2026-11-03T10:30:08"} | {"secret": "mr x"})
    assert str(raised.value).startswith(why)


def test_no_pattern_takes_longer_than_its_text() -> None:
    started = time.perf_counter()
    assert found("match(a, '^(a+)+$')", {"a": "a" * 5000 + "b"}) is False
    assert time.perf_counter() - started < 1


# What says something else than it means


@pytest.mark.parametrize(
    ("text", "event", "value"),
    [
        ("!order.cancelledAt", {"order": {"cancelledAt": None}}, True),
        ("!order.cancelledAt", {"order": {"cancelledAt": "2026-11-03"}}, False),
        ("type == 'sent' && !a.b.c", {"type": "sent", "a": {"b": {"c": False}}}, True),
        ("!a.b && !a.c", {"a": {"b": None}}, True),
        ("!!a.b", {"a": {"b": 1}}, True),
        ("!parcels[?state != 'delivered']", {"parcels": [{"state": "delivered"}]}, True),
        ("!parcels[?state != 'delivered']", {"parcels": [{"state": "sent"}]}, False),
        ("!parcels[].returned", {"parcels": [{"returned": True}]}, False),
        ("!parcels[*].returned[]", {"parcels": [{}]}, True),
        ("!headers.test", {}, True),
        ("!lines[0].gift", {"lines": [{"gift": True}]}, False),
    ],
)
def test_what_is_denied_is_the_whole_path(text: str, event: object, value: object) -> None:
    """To JMESPath `!a.b` is `(!a).b`: null for every event, and a route with it never took one."""
    record = {"event": event, "headers": {}}
    compiled = compile_expression(text, is_condition=True)
    assert is_true(compiled.search(record if compiled.reads_record else event)) is value


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('status == "shipped"', "shipped"),
        ('"shipped" == status', "shipped"),
        ("status == shipped", "shipped"),
        ("status != shipped", "shipped"),
        ("a.status == shipped || x", "shipped"),
        ('lines[?kind == "gift"]', "gift"),
        ('lower(status) == "shipped"', "shipped"),
        ('starts_with(type, "order.")', "order."),
        ('contains(tags, "gift")', "gift"),
        ('split(name, "-")[0]', "-"),
    ],
)
def test_a_name_where_a_text_must_be_meant_is_refused(text: str, name: str) -> None:
    with pytest.raises(ExpressionError, match=f"`{re.escape(name)}` names a field here: .* single quotes, '"):
        compile_expression(text)


@pytest.mark.parametrize("text", ["isReturn == true", "isReturn != false"])
def test_json_without_backticks_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError, match="JSON stands in backticks"):
        compile_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "status == 'shipped'",
        "\"order-status\" == 'shipped'",
        "'shipped' == \"order-status\"",
        "billing.country == shipping.country",
        "status == event.shipped",
        "lines[?kind == @.gift]",
        "starts_with(\"order-type\", 'order')",
        "headers.kind == event.kind",
        "event != null",
    ],
)
def test_what_means_a_field_is_not_refused(text: str) -> None:
    compile_expression(text)


@pytest.mark.parametrize("text", ["event == 'order.created'", "headers == 'x'", "meta == 'x'"])
def test_the_whole_event_is_equal_to_no_text(text: str) -> None:
    with pytest.raises(ExpressionError, match="the event's own field is event"):
        compile_expression(text)


@pytest.mark.parametrize(
    ("text", "event", "takes"),
    [
        ("a.x == b.y", {}, False),
        ("a.x == b.y", {"a": {"x": None}}, False),
        ("a.x == b.y", {"a": {"x": 1}, "b": {"y": 1}}, True),
        ("a.x == b.y", {"a": {"x": 1}}, False),
        ("a.x != b.y", {}, False),
        ("a.x != b.y", {"a": {"x": 1}}, True),
        ("!(a.x != b.y)", {}, False),
        ("!(a.x == b.y)", {}, False),
        ("!(a.x == b.y)", {"a": {"x": 1}}, True),
        ("a.x == b.y || c", {}, False),
        ("a.x == null", {}, True),
        ("lines[?a.x == b.y]", {"lines": [{}]}, False),
        ("lower(a.x) == lower(b.y)", {}, False),
    ],
)
def test_a_comparison_of_two_absent_fields_takes_no_event(text: str, event: object, takes: bool) -> None:
    assert is_true(compile_expression(text, is_condition=True).search(event)) is takes


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("a.b == 'x'", {("a", "b"): False}),
        ("a || b.c", {("a",): True, ("b", "c"): True}),
        ("lines[?kind == 'x'].sku", {("lines",): False}),
        ("event.key", {("key",): False}),
        ("headers.x && key && meta.topic", {}),
        ("{a: b, c: d.e}", {("b",): False, ("d", "e"): False}),
    ],
)
def test_the_paths_of_an_expression(text: str, paths: object) -> None:
    assert dict(paths_of(text)) == paths
