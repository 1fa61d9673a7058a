"""The strict frame parser: refused frames, and accepted ones that are sent unchanged."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals.model import Outcome
from gateway.wire import frames
from gateway.wire.frames import CallFrame, FrameError, Notification, Request, Response, decode
from rows import each_row

CALL = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":%s}}'
DEEP = '{"a":' * 40 + '{"x":1,"x":2}' + "}" * 40

REFUSED = {
    "a repeated method": '{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}',
    "a repeated id": '{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}',
    "a repeated params": '{"jsonrpc":"2.0","id":1,"method":"ping","params":{},"params":{}}',
    "a repeated name": '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}',
    "a name repeated after unescaping": '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","n\\u0061me":"b"}}',
    "a repeat deep in the arguments": CALL % DEEP,
    "another case of a member": '{"jsonrpc":"2.0","id":1,"Method":"tools/call","method":"ping"}',
    "PARAMS": '{"jsonrpc":"2.0","id":1,"method":"ping","PARAMS":{}}',
    "a long s in params": '{"jsonrpc":"2.0","id":1,"method":"ping","param\\u017f":{}}',
    "a Name in params": '{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"Name":"x"}}',
    "a NUL in a member's name": '{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"na\\u0000me":"x"}}',
    "a full-width name": '{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"\uff4eame":"x"}}',
    "another case of taskId": '{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskID":"hold_x"}}',
    "a full-width uri": '{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"\uff35ri":"x"}}',
    "an unknown member of a call": '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","extra":1}}',
    "id null": '{"jsonrpc":"2.0","id":null,"method":"tools/call","params":{"name":"t"}}',
    "id true": '{"jsonrpc":"2.0","id":true,"method":"ping"}',
    "id 1.0": '{"jsonrpc":"2.0","id":1.0,"method":"ping"}',
    "id {}": '{"jsonrpc":"2.0","id":{},"method":"ping"}',
    "id []": '{"jsonrpc":"2.0","id":[],"method":"ping"}',
    "a call without an id": '{"jsonrpc":"2.0","method":"tools/call","params":{"name":"t"}}',
    "a call without a name": '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}',
    "a call whose name is a number": '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":1}}',
    "arguments null": CALL % "null",
    "arguments a list": CALL % "[]",
    "meta a list": '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","_meta":[]}}',
    "meta a string": '{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":"x"}}',
    "meta null in a notification": '{"jsonrpc":"2.0","method":"notifications/progress","params":{"_meta":null}}',
    "params a list": '{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}',
    "method a number": '{"jsonrpc":"2.0","id":1,"method":1}',
    "a batch": '[{"jsonrpc":"2.0","id":1,"method":"ping"}]',
    "an empty batch": "[]",
    "no object": '"ping"',
    "no version": '{"id":1,"method":"ping"}',
    "version 1.0": '{"jsonrpc":"1.0","id":1,"method":"ping"}',
    "request and answer at once": '{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}',
    "neither": '{"jsonrpc":"2.0","id":1}',
    "result and error": '{"jsonrpc":"2.0","id":1,"result":{},"error":{}}',
    "an answer without id": '{"jsonrpc":"2.0","result":{}}',
    "an answer with params": '{"jsonrpc":"2.0","id":1,"result":{},"params":{}}',
    "NaN": CALL % '{"a":NaN}',
    "Infinity": CALL % '{"a":-Infinity}',
    "1e400": CALL % '{"a":1e400}',
    "5000 digits": CALL % ('{"a":' + "9" * 5000 + "}"),
    "half a surrogate pair": CALL % '{"a":"\\ud800"}',
    "half a pair in a name": CALL % '{"\\udc00":1}',
    "a raw control character": CALL % '{"a":"\n"}',
    "depth 65": CALL % ("[" * 63 + "]" * 63),
    "depth 100000": "[" * 100_000,
    "depth 5000, closed": CALL % ('{"a":' + "[" * 5000 + "]" * 5000 + "}"),
    "more after the end": '{"jsonrpc":"2.0","id":1,"method":"ping"} {}',
    "a trailing comma": '{"jsonrpc":"2.0","id":1,"method":"ping",}',
    "single quotes": "{'jsonrpc':'2.0'}",
    "a comment": '{"jsonrpc":"2.0","id":1,"method":"ping"}//',
    "nothing": "",
}


@each_row("text", REFUSED.values())
def test_a_malformed_frame_is_refused(text):
    with pytest.raises(FrameError) as refused:
        decode(text.encode())
    assert refused.value.code in (-32700, -32600, -32602)
    assert refused.value.message.endswith(".")


@each_row(
    "data",
    [
        (CALL % "{}").encode("utf-16"), (CALL % "{}").encode("utf-32"), b"\xef\xbb\xbf" + (CALL % "{}").encode(),
        (CALL % '{"a":"').encode()[:-3] + b"\xff", b'{"a":"\xc0\xae"}', (CALL % "{}").encode("utf-7") + b"+",
    ],
)  # fmt: skip
def test_only_utf_8_is_accepted(data):
    with pytest.raises(FrameError):
        decode(data)


def test_a_frame_with_too_many_bytes_or_members_is_refused_before_parsing():
    with pytest.raises(FrameError, match="longer than"):
        decode(b" " * (frames.MAX_BYTES + 1))
    for colon in (":", " :", "\t\n:"):
        many = "{" + ",".join(f'"{n}"{colon}1' for n in range(frames.MAX_MEMBERS + 1)) + "}"
        with pytest.raises(FrameError, match="members"):
            decode((CALL % many).encode())


def test_an_error_carries_the_id_if_it_could_be_read():
    with pytest.raises(FrameError) as refused:
        decode(b'{"jsonrpc":"2.0","id":"x","method":1}')
    assert refused.value.id == "x"


def test_requests_notifications_and_responses_are_told_apart():
    assert decode(b'{"jsonrpc":"2.0","id":"a","method":"ping"}') == Request(
        id="a", method="ping", params={}, raw=b'{"jsonrpc":"2.0","id":"a","method":"ping"}'
    )
    assert isinstance(decode(b'{"jsonrpc":"2.0","method":"notifications/initialized"}'), Notification)
    assert isinstance(decode(b'{"jsonrpc":"2.0","id":5,"result":{}}'), Response)
    assert isinstance(decode(b'{"jsonrpc":"2.0","id":5,"error":{"code":1,"message":""}}'), Response)


def test_a_tool_call_keeps_its_argument_bytes_and_the_rest_of_its_params():
    text = '{"method":"tools/call","params":{"_meta":{"progressToken": 7},"arguments": { "b":1.0,"a":-0 },"name":"t"},"id":"i","jsonrpc":"2.0"}'
    call = decode(text.encode())
    assert isinstance(call, CallFrame)
    assert (call.id, call.name, call.method, call.progress_token) == ("i", "t", "tools/call", 7)
    assert call.arguments == b'{ "b":1.0,"a":-0 }'
    assert call.rest == {"_meta": b'{"progressToken": 7}'}
    assert frames.rebuild(call) == (
        b'{"jsonrpc":"2.0","id":"i","method":"tools/call","params":{"name":"t","arguments":{ "b":1.0,"a":-0 },"_meta":{"progressToken": 7}}}'
    )
    assert frames.rebuild(call, arguments=b"{}").endswith(b'"arguments":{},"_meta":{"progressToken": 7}}}')


def test_a_call_without_arguments_has_an_empty_object():
    call = decode(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}')
    assert call.arguments == b"{}"
    assert call.progress_token is None


@each_row("token", ["true", "1.5", "null", "{}"])
def test_a_progress_token_is_a_string_or_an_integer(token):
    call = decode(
        f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","_meta":{{"progressToken":{token}}}}}}}'.encode()
    )
    assert call.progress_token is None


def test_a_frame_may_be_64_levels_deep():
    assert decode((CALL % ('{"a":' + "[" * 61 + "]" * 61 + "}")).encode())
    with pytest.raises(FrameError, match="deeper"):
        decode((CALL % ('{"a":' + "[" * 62 + "]" * 62 + "}")).encode())


def test_many_brackets_side_by_side_are_not_deep():
    assert decode((CALL % ('{"a":[' + ",".join(["[]"] * 500) + "]}")).encode())


def test_surrogate_pairs_and_escaped_nul_are_text():
    call = decode((CALL % '{"a":"\\ud83d\\ude00\\u0000"}').encode())
    assert call.params["arguments"]["a"] == "😀\0"


# JSON as text, to cover every spelling of numbers and strings

numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)
strings = st.one_of(
    st.text(st.characters(blacklist_categories=["Cs"])).map(
        lambda text: json.dumps(text, ensure_ascii=False)
    ),
    st.text(st.characters(blacklist_categories=["Cs"])).map(json.dumps),
    st.just('"\\/\\b\\u0041"'),
)
space = st.sampled_from(["", " ", "\t", "  ", "\n"])


def objects(values):
    pairs = st.lists(
        st.tuples(space, strings, space, values), max_size=4, unique_by=lambda pair: json.loads(pair[1])
    )
    return pairs.map(
        lambda found: "{" + ",".join(f"{a}{key}{b}:{a}{value}" for a, key, b, value in found) + "}"
    )


values = st.recursive(
    st.one_of(numbers, strings, st.sampled_from(["true", "false", "null"])),
    lambda inner: st.one_of(
        objects(inner), st.lists(inner, max_size=3).map(lambda items: "[" + " ,".join(items) + "]")
    ),
    max_leaves=10,
)


@given(objects(values))
def test_the_argument_bytes_of_any_accepted_frame_are_sent_unchanged(arguments):
    call = decode((CALL % arguments).encode())
    assert call.arguments == arguments.strip().encode()
    assert frames.rebuild(call) == (CALL % arguments.strip()).encode()
    assert decode(frames.rebuild(call)).arguments == call.arguments


@given(objects(values), strings, values, values)
def test_a_repeated_member_is_refused_at_any_depth(arguments, key, first, second):
    repeated = f"{{{key}:{first},{key}:{second}}}"
    for inside in (repeated, f'{{"zz":{repeated}}}', f'{{"zz":[{arguments},{repeated}]}}'):
        with pytest.raises(FrameError, match="repeats"):
            decode((CALL % inside).encode())


@each_row("size", [1, 2, 7, 8, 39, 40, 41, 64, 100, 1000, 20_000])
def test_a_repeated_member_is_refused_in_an_object_of_any_size(size):
    members = [f'"m{number}":{number}' for number in range(size)]
    for first, second in {(0, size), (size // 2, size), (size - 1, size), (0, 0)}:
        repeated = [*members]
        repeated.insert(second, f'"m{first}":"again"')
        with pytest.raises(FrameError, match="repeats"):
            decode((CALL % f"{{{','.join(repeated)}}}").encode())
    decode((CALL % f"{{{','.join(members)}}}").encode())


@given(st.binary(max_size=200))
def test_no_bytes_raise_another_error(data):
    try:
        decode(data)
    except FrameError:
        pass


@given(st.text(max_size=100))
def test_no_text_inside_a_frame_raises_another_error(text):
    try:
        decode((CALL % text).encode("utf-8", "surrogatepass"))
    except FrameError:
        pass


# Responses of servers


@each_row(
    ("frame", "outcome"),
    [
        ('{"jsonrpc":"2.0","id":1,"result":{ "a":1.0 }}', Outcome(is_error=False, body=b'{ "a":1.0 }')),
        (
            '{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"m"}}',
            Outcome(is_error=True, body=b'{"code":-1,"message":"m"}'),
        ),
        ('{"jsonrpc":"2.0","id":"1","result":{}}', None),
        ('{"jsonrpc":"2.0","id":1.0,"result":{}}', None),
        ('{"jsonrpc":"2.0","id":true,"result":{}}', None),
        ('{"jsonrpc":"2.0","id":2,"result":{}}', None),
        ('{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"m"}}', None),
        ('{"jsonrpc":"2.0","id":1,"method":"ping"}', None),
        ('{"jsonrpc":"2.0","id":1,"result":{},"error":{}}', None),
        ("[]", None),
    ],
)
def test_only_a_response_with_the_same_id_is_the_answer(frame, outcome):
    data = frame.encode()
    assert frames.parse_outcome(frames.parse_server_frame(data), data, 1) == outcome


def test_an_ambiguous_answer_is_refused():
    with pytest.raises(FrameError):
        frames.parse_server_frame(b'{"jsonrpc":"2.0","id":1,"id":2,"result":{}}')


def test_requests_and_notifications_from_a_server_are_recognized():
    for data, message in (
        (b'{"jsonrpc":"2.0","method":"notifications/progress"}', True),
        (b'{"jsonrpc":"2.0","id":1,"result":{}}', False),
        (b"[]", False),
    ):
        assert frames.is_request_or_notification(frames.parse_server_frame(data)) is message


def test_the_gateway_writes_compact_frames():
    assert frames.build_result(1, {"a": 1}) == b'{"jsonrpc":"2.0","id":1,"result":{"a":1}}'
    assert (
        frames.build_error(None, -1, "m") == b'{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"m"}}'
    )
    assert (
        frames.build_error("x", -1, "m", {"d": 1})
        == b'{"jsonrpc":"2.0","id":"x","error":{"code":-1,"message":"m","data":{"d":1}}}'
    )
    assert frames.build_notification("m", {}) == b'{"jsonrpc":"2.0","method":"m","params":{}}'
    assert (
        frames.build_response(1, Outcome(is_error=True, body=b"{}")) == b'{"jsonrpc":"2.0","id":1,"error":{}}'
    )
    assert (
        frames.build_response(1, Outcome(is_error=False, body=b"{ }"))
        == b'{"jsonrpc":"2.0","id":1,"result":{ }}'
    )


def test_only_a_request_has_an_id_to_answer():
    assert frames.request_id_of(decode(b'{"jsonrpc":"2.0","id":5,"method":"ping"}')) == 5
    assert frames.request_id_of(decode(b'{"jsonrpc":"2.0","id":5,"result":{}}')) is None
    assert frames.request_id_of(None) is None


def test_tool_names_are_plain_ascii():
    assert frames.TOOL_NAME.fullmatch("a.b-C_9")
    for name in ("", "a b", "a\n", "ä", "a" * 129):
        assert not frames.TOOL_NAME.fullmatch(name)
    assert isinstance(frames.TOOL_NAME, re.Pattern)
