"""The benches of calls and holds check every answer, print every figure, and fail above their bound."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
sys.path.append(str(BENCH))

import hot
from http_client import Response, WrongResponse, read_response
from load import MODERN, Measured, build_call, open_load
from routes import OKAYED, RELAY
from server import JSON_HEAD, Connection

CALL = build_call("/mcp", "get_thing", 7, "hello")
RIGHT = {"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": "hello"}]}}
WRONG_RESULT = {"content": [{"type": "text", "text": "other"}]}
REFUSED = {**RIGHT["result"], "isError": True}
WRONG = {
    "another status": (500, RIGHT),
    "another id": (200, {**RIGHT, "id": 8}),
    "another text": (200, {**RIGHT, "result": WRONG_RESULT}),
    "a refusal": (200, {**RIGHT, "result": REFUSED}),
    "an error": (200, {"jsonrpc": "2.0", "id": 7, "error": {"code": -32000, "message": "no"}}),
    "no content": (200, {**RIGHT, "result": {}}),
    "no frame": (200, None),
}


def run(program, *options):
    return subprocess.run(
        [sys.executable, BENCH / program, *options], capture_output=True, text=True, check=False
    )


def rounds(processor):
    return [hot.Round(one, Measured(1.0, [1.0])) for one in processor]


@pytest.mark.parametrize("body", [CALL.frame, CALL.event, json.dumps(RIGHT).encode()])
def test_an_answer_with_the_result_is_right_whatever_its_bytes(body):
    CALL.check(Response(200, body))


def test_the_last_frame_of_an_event_stream_is_the_answer():
    progress = b'data: {"jsonrpc":"2.0","method":"notifications/progress"}\n\n: beat\n\n'
    CALL.check(
        Response(200, b"id: 1\ndata: \n\n" + progress + b"data: " + json.dumps(RIGHT).encode() + b"\n\n")
    )


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_answer_is_refused(case):
    status, frame = WRONG[case]
    with pytest.raises(WrongResponse):
        CALL.check(Response(status, json.dumps(frame).encode()))


@pytest.mark.parametrize(
    "received",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    ],
)
def test_a_response_is_read_only_when_it_is_complete(received):
    assert read_response(received) == Response(200, b"hello")
    assert {read_response(received[:end]) for end in range(len(received))} == {None}


class Faulty(Connection):
    """A server whose tenth answer is that of another request."""

    answered = 0

    def _respond(self, body):
        Faulty.answered += 1
        return JSON_HEAD % (len(CALL.frame), CALL.frame) if Faulty.answered == 10 else super()._respond(body)


class Closing(Connection):
    """A server that closes the connection in place of an answer."""

    def _respond(self, body):
        self._transport.close()
        return b""


async def load_server(protocol, calls, count):
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: protocol(sse=False), "127.0.0.1", 0) as server:
        async with open_load(server.sockets[0].getsockname()[1], 4, calls) as load:
            return await load.run(count)


async def test_the_load_makes_each_call_once():
    calls = [build_call("/mcp", "get_thing", number, "x" * number, revision=MODERN) for number in range(20)]
    done = await load_server(Connection, calls, 50)
    assert len(done.took) == 50
    assert list(done.took) == sorted(done.took)


@pytest.mark.parametrize("protocol", [Faulty, Closing])
async def test_the_load_stops_at_a_wrong_answer(protocol):
    calls = [build_call("/mcp", "get_thing", number, "other") for number in range(100, 120)]
    with pytest.raises(WrongResponse):
        await load_server(protocol, calls, 50)


def test_a_ratio_compares_the_two_halves_of_one_round():
    ratios = hot.compute_ratios({OKAYED: rounds([50.0, 40.0, 90.0]), RELAY: rounds([100.0, 50.0, 100.0])})
    assert ratios == [0.5, 0.8, 0.9]


@pytest.mark.parametrize(
    ("ratio", "most", "fails"),
    [
        (0.44, 0.45, False),
        (0.45, 0.45, False),
        (0.46, 0.45, True),
        (2.7, None, False),
        (float("nan"), 0.45, True),
    ],
)
def test_a_ratio_above_the_bound_fails(ratio, most, fails):
    assert hot.is_too_slow(ratio, most) is fails


@pytest.mark.parametrize(("bound", "code"), [("0.001", 1), ("1000", 0)])
def test_the_hot_bench_fails_above_its_bound(bound, code):
    done = run("hot.py", "--rounds", "1", "--calls", "200", "--fail-above", bound, "--json")
    assert (done.returncode, bool(done.stderr)) == (code, bool(code)), done.stderr
    names = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert {RELAY, OKAYED} <= set(names)
    assert json.loads(done.stdout.splitlines()[-1])["ratio"] > 0.001


def test_the_bench_of_calls_has_a_row_for_each_route():
    done = run(
        "calls.py", "--rounds", "1", "--seconds", "0.2", "--only", f"{RELAY},{OKAYED}", "--sse", "--modern"
    )
    assert (done.stderr, done.returncode) == ("", 0)
    rows = [line.split(" | ")[0] for line in done.stdout.splitlines()]
    assert [rows.count(f"| {name}") for name in ("direct", RELAY, OKAYED)] == [2, 2, 2]


def test_the_bench_of_holds_prints_every_figure():
    done = run("holds.py", "--count", "60", "--agents", "4", "--wait", "0.2", "--levels", "100", "--json")
    assert (done.stderr, done.returncode) == ("", 0)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert len(figures) == 13
    # The sweep may not fall into a wait of 0.2 s.
    assert {name for name, value in figures.items() if not value} <= {"processor time while they wait"}
