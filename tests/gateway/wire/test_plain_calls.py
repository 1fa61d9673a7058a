"""The reader of plain calls and the strict parser read every frame alike."""

import json
import random

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from gateway.wire import frames, plain_calls

CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":%b,"_meta":{"a":[]}}}'
NAMES = ["a", "b", "amount", "name", "arguments", "_meta", "id", "method", "x:y", "", "é", "😀", "a\\", 'a"']
TEXTS = [*NAMES, '":', '" :', ":", '\\":', "http://x:1/", "\x00", "\x7f", "\u2028", "ʼn", "1.0"]
SPACES = ["", "", "", "", "", " ", "\n", "\t", "\r", "  "]
NUMBERS = [
    "0", "-0", "1", "-1", "1.0", "-0.0", "0.1", "1e5", "1E-7", "4.9e-324", "1e-400", "1.7976931348623157e308", "1e308",
    "9007199254740993", "18446744073709551615", "18446744073709551616", "-9223372036854775809", "2.2250738585072011e-308",
    "123456789012345678901234567890", "0.1000000000000000055511151231257827", "9007199254740993.0", "1e23", "8.5e-10",
]  # fmt: skip
INVALID = [
    "NaN", "-Infinity", "1e400", "01", "1.", ".5", "+1", "tru", "nul", "'a'", "", "1" * 5000, '"\t"', '"\\x"',
    '"\\ud800"', '"\\udc00\\ud800"', '"\\uD83D"', '"\\u12"', "[1,]", '{"a":1,}', '{"a":1,"a":1}', '{"a" 1}', "[" * 70,
]  # fmt: skip


class Writer:
    """Writes JSON texts in every form that the grammar allows, and some that it does not."""

    def __init__(self, chance):
        self.chance = chance
        #: How often an odd form is written: in most frames seldom, in some often.
        self.odd = chance.choice([0, 0.01, 0.1])

    def space(self):
        return self.chance.choice(SPACES) if self.chance.random() < self.odd else ""

    def string(self, text):
        if self.chance.random() < self.odd:
            return '"' + "".join(self.escape(char) for char in text) + '"'
        return json.dumps(text, ensure_ascii=self.chance.random() < self.odd)

    def escape(self, char):
        plain = json.dumps(char, ensure_ascii=False)[1:-1]
        units = char.encode("utf-16-be").hex()
        escaped = "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
        return self.chance.choice([plain, escaped, escaped.upper().replace("\\U", "\\u")])

    def number(self):
        if self.chance.random() < 0.5:
            return self.chance.choice(NUMBERS)
        digits = str(self.chance.getrandbits(self.chance.randrange(1, 120)))
        fraction = f".{self.chance.getrandbits(64):020}" if self.chance.random() < 0.5 else ""
        exponent = f"e{self.chance.randrange(-330, 310)}" if self.chance.random() < 0.3 else ""
        return self.chance.choice(["", "-"]) + digits + fraction + exponent

    def value(self, depth=0):
        if self.chance.random() < self.odd / 5:
            return self.chance.choice(INVALID)
        match self.chance.randrange(6 if depth < 4 else 4):
            case 0:
                return self.number()
            case 1 | 2:
                return self.string(self.chance.choice(TEXTS))
            case 3:
                return self.chance.choice(["true", "false", "null", "{}", "[]"])
            case 4:
                return self.list([self.value(depth + 1) for _ in range(self.chance.randrange(4))], "[]")
            case _:
                return self.object(depth)

    def object(self, depth=0):
        names = self.chance.sample(NAMES, self.chance.randrange(5))
        if names and self.chance.random() < self.odd:
            names.append(self.chance.choice(names))
        return self.members([(name, self.value(depth + 1)) for name in names])

    def members(self, pairs):
        return self.list([f"{self.string(name)}{self.space()}:{value}" for name, value in pairs], "{}")

    def list(self, items, brackets):
        body = ",".join(f"{self.space()}{item}{self.space()}" for item in items)
        return brackets[0] + body + self.space() + brackets[1]

    def frame(self):
        params = [("name", self.string("create_note")), ("arguments", self.object())]
        if self.chance.random() < 0.5:
            params.append(("_meta", self.object()))
        members = [
            ("jsonrpc", '"2.0"'), ("id", self.chance.choice([self.number(), self.string("x:1")])),
            ("method", self.string("tools/call")), ("params", self.members(self.jumble(params))),
        ]  # fmt: skip
        return self.space() + self.members(self.jumble(members)) + self.space()

    def jumble(self, members):
        """Return the members, sometimes in another order, and seldom without one, with another, or with one twice."""
        if self.chance.random() < 0.2:
            self.chance.shuffle(members)
        if self.chance.random() < self.odd:
            members = [*members, (self.chance.choice(NAMES), self.value()), self.chance.choice(members)]
            del members[self.chance.randrange(len(members))]
        return members


def mutate(chance, data):
    """Return the bytes with a few random edits."""
    for _ in range(chance.choice([0, 0, 0, 1, 1, 2, 5])):
        cut = sorted(chance.randrange(len(data) + 1) for _ in range(4))
        start, a, b, end = (data[: cut[0]], data[cut[0] : cut[1]], data[cut[1] : cut[2]], data[cut[2] :])
        data = chance.choice([
            start + end, start + b + a + end, start + a + a + b + end, start + a + chance.randbytes(1) + b + end,
            start + a + chance.choice([b'"', b":", b",", b"\\", b"}", b"{", b" ", b"\xff", b"0", b"\x00"]) + b + end,
        ])  # fmt: skip
    return data


def read(decode, data):
    """Return everything that a reader says about a frame, with the types of its values."""
    try:
        frame = decode(data)
    except frames.FrameError as error:
        return error.code, error.message, repr(error.id)
    params = {name: repr(value) for name, value in getattr(frame, "params", {}).items()}
    if not isinstance(frame, frames.CallFrame):
        return type(frame), params, frame.raw
    return repr(frame.id), frame.name, frame.arguments, params, frame.rest, frame.raw


@given(st.randoms(use_true_random=True))
def test_both_readers_read_every_frame_alike(chance):
    data = mutate(chance, Writer(chance).frame().encode("utf-8", "surrogatepass"))
    data += b" " * chance.choice([0, 0, plain_calls.LONG])
    note(repr(data))
    assert read(frames.decode, data) == read(frames.decode_strictly, data)


@given(st.binary(max_size=200))
def test_both_readers_read_random_bytes_alike(inserted):
    for data in (inserted, CALL % inserted, CALL % (b'{"a":"%b"}' % inserted)):
        assert read(frames.decode, data) == read(frames.decode_strictly, data)


@pytest.mark.parametrize(
    "arguments", [b"{}", b'{"a":1,"b":{"c":[{"d":null}]}}', b'{"at":"12:30","u":"http://x:1/"}']
)
def test_a_plain_call_is_read_without_the_strict_parser(arguments):
    for data in (CALL % arguments, CALL % arguments + b" " * plain_calls.LONG):
        assert plain_calls.decode(data, frames.MAX_DEPTH) is not None


@pytest.mark.parametrize(
    "arguments",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"a" :":"}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":[{"b":1,"b":2}]}',
        b'{"a":"\\ud800"}',
    ],
)
def test_an_unusual_call_is_left_to_the_strict_parser(arguments):
    for data in (CALL % arguments, CALL % arguments + b" " * plain_calls.LONG):
        assert plain_calls.decode(data, frames.MAX_DEPTH) is None


def test_a_call_that_is_nested_too_deep_is_left_to_the_strict_parser():
    for depth, plain in [(frames.MAX_DEPTH - 2, True), (frames.MAX_DEPTH - 1, False)]:
        data = CALL % (b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1))
        assert (plain_calls.decode(data, frames.MAX_DEPTH) is not None) is plain
        assert read(frames.decode, data) == read(frames.decode_strictly, data)


def test_the_writer_of_this_test_writes_plain_and_unusual_and_refused_frames():
    chance = random.Random(1)
    written = [Writer(chance).frame().encode("utf-8", "surrogatepass") for _ in range(500)]
    plain = [data for data in written if plain_calls.decode(data, frames.MAX_DEPTH)]
    refused = [data for data in written if isinstance(read(frames.decode, data)[0], int)]
    assert len(plain) > 200
    assert len(refused) > 30
    assert len(plain) + len(refused) < 490
