"""The key of repeated calls, and the digest that binds a review to the call that was seen."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from approval_fixtures import held
from approvals.digest import canonical_json, digest, key
from rows import each_row

CALL = held(0.0).call


def of(arguments: str):
    return key(replace(CALL, arguments=arguments.encode()))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a":1,"b":[2,{"c":3,"d":4}]}', '{ "b" : [2, {"d":4,"c":3}],\n"a":1}'),
        ('{"a":"\\u0041"}', '{"a":"A"}'),
        ("{}", "{ }"),
    ],
)
def test_order_white_space_and_escapes_do_not_change_the_key(one, other):
    assert of(one) == of(other)


@each_row(
    ("one", "other"),
    [('{"a":1}', '{"a":1.0}'), ('{"a":1}', '{"a":1e0}'), ('{"a":9007199254740993}', '{"a":9007199254740992}'), ('{"a":0}', '{"a":-0}'),
     ('{"a":1}', '{"a":"1"}'), ('{"a":1}', '{"a":"n1"}'), ('{"a":"s"}', '{"a":"ss"}'), ('{"a":true}', '{"a":1}'), ('{"a":true}', '{"a":"true"}'),
     ('{"a":null}', "{}"), ('{"a":[1,2]}', '{"a":[2,1]}'), ('{"a":[]}', '{"a":{}}'), ('{"a":["number","1"]}', '{"a":1}')],
)  # fmt: skip
def test_the_spelling_of_a_number_and_every_value_change_the_key(one, other):
    assert of(one) != of(other)


@each_row("change", [{"agent": "x"}, {"server": "x"}, {"tool": "x"}, {"arguments": b'{"user_name": "eve"}'}])
def test_agent_server_tool_and_arguments_change_the_key_and_the_digest(change):
    assert key(replace(CALL, **change)) != key(CALL)
    assert digest(replace(CALL, **change)) != digest(CALL)


def test_owner_and_session_do_not_change_the_key():
    assert key(replace(CALL, owner="x", session="y")) == key(CALL)


def test_the_digest_is_of_the_exact_bytes_and_the_definition():
    assert digest(replace(CALL, arguments=b'{"user_name":"bob"}')) != digest(CALL)
    assert digest(CALL, "definition") != digest(CALL)


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def normal(value):
    """Sort members and distinguish types; an independent version of the function under test."""
    if isinstance(value, dict):
        return ("object", tuple(sorted((name, normal(member)) for name, member in value.items())))
    if isinstance(value, list):
        return ("array", tuple(map(normal, value)))
    return (type(value).__name__, repr(value))


@given(
    st.dictionaries(st.text(max_size=3), values, max_size=3),
    st.dictionaries(st.text(max_size=3), values, max_size=3),
)
def test_two_keys_are_equal_exactly_when_the_values_are(one, other):
    assert (of(json.dumps(one)) == of(json.dumps(other))) == (normal(one) == normal(other))


class _Spelled(str):
    __slots__ = ()


def first_canonical_json(arguments):
    """The first version's text, in the keys of stored calls."""
    value = json.loads(arguments, parse_int=_Spelled, parse_float=_Spelled)
    return json.dumps(_tag(value), sort_keys=True, separators=(",", ":"))


def _tag(value):
    match value:
        case dict():
            return {name: _tag(member) for name, member in value.items()}
        case list():
            return [_tag(item) for item in value]
        case _Spelled():
            return f"n{value}"
        case str():
            return f"s{value}"
        case _:
            return value


NAMES = st.one_of(st.sampled_from(["a", "b", "B", "é", "NaN", "\x7f", "\ud800"]), st.text(max_size=3))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), NAMES),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)


@settings(max_examples=1000)
@given(VALUES, st.booleans(), st.sampled_from([None, " ", "\t"]))
def test_the_canonical_text_of_stored_keys_never_changes(value, escaped, indent):
    data = json.dumps({"v": value}, ensure_ascii=escaped, indent=indent).encode(errors="surrogatepass")
    assert canonical_json(data) == first_canonical_json(data)


@pytest.mark.parametrize(
    "text",
    ['{"a":1,"a":2}', '{"a":-0,"b":1E+05,"c":0.10,"d":123456789012345678901234567890}', '{"a":"\\u0041\\/\\ud83d\\ude00\\ud800"}',
     '{"a":NaN,"b":-Infinity}', '{"a":"NaN"}', '{"a":"\x7f <>&"}', '"a"', "1", '{"é":"é","z":1,"Z":2}', '\ufeff{"a":1}', "[]"],
)  # fmt: skip
def test_an_unusual_text_has_the_canonical_text_of_stored_keys(text):
    assert canonical_json(text.encode()) == first_canonical_json(text.encode())
