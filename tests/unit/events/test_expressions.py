"""JMESPath: errors are found when it is compiled; what it gives is the library's result, and JSON."""

from __future__ import annotations

import json

import jmespath
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from consumer.events.expressions import EvaluationError, ExpressionError, compile_expression, is_true

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


@given(EXPRESSIONS, EVENTS)
def test_what_is_compiled_gives_what_the_library_gives(text: str, event: dict[str, object]) -> None:
    try:
        compiled = compile_expression(text)
    except ExpressionError as error:
        assume("names a field here" not in str(error))
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
        ("type = 'a'", "Unknown token '=' at column 6: `type = 'a'`"),
        ("a..b", "unexpected . at column 3: `a..b`"),
        ("a b", "unexpected b at column 3: `a b`"),
        ("type == 'a", "Unclosed ' delimiter at column 9: `type == 'a`"),
        ("starts_wiht(type, 'a')", "there is no function starts_wiht() (column 1): `starts_wiht(type, 'a')`"),
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


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("length(a)", "failed: length() was given a wrong number"),
        ("a < b", "failed (TypeError)"),
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
