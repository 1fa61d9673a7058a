"""The imports of a gateway, and its garbage collection."""

import asyncio
import gc
import os
import subprocess
import sys

import pytest
from mcp.server.request_state import AESGCMRequestStateCodec

from gateway.app.config import parse_config
from gateway.app.gateway import assemble
from gateway.app.serving import run_loops
from gateway.hold.request_state import PREFIX, InvalidStateError, RequestState, StateSealer
from hang import HANG
from recording_server import RecordingServer
from rows import each_row

OLD, NEW = b"o" * 32, b"n" * 32
TICKET = RequestState(call="hold_1", round=2, asked=True, state="theirs")

STARTED = """
import asyncio, sys
from gateway.app.config import parse_config
from gateway.app.gateway import assemble
from gateway.hold.request_state import RequestState
from gateway.app.serving import serve

CONFIG = "servers: {notes: {url: 'http://127.0.0.1:1/mcp'}}\\npolicy: {default: deny}\\nstore: 'memory:'\\nlisten: '127.0.0.1:0'\\ninbox: {listen: '127.0.0.1:0'}"

async def main():
    async with assemble(parse_config(CONFIG, {}, str)) as gateway, serve(gateway):
        await gateway.discovery_done.wait()
        sealer = gateway.sealer()
        assert sealer.open(sealer.seal(RequestState(call="hold_1"))).call == "hold_1"
        print([name for name in sys.modules if name.partition(".")[0] in {"mcp", "mcp_types", "pydantic"}])

asyncio.run(main())
"""


def test_a_gateway_starts_and_seals_without_the_sdk():
    """It takes half a second and 36 MB to load."""
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    said = subprocess.run(
        [sys.executable, "-c", STARTED], capture_output=True, text=True, env=env, timeout=HANG
    )
    assert (said.stdout, said.returncode) == ("[]\n", 0), said.stderr


def test_the_gateway_and_the_sdk_open_each_others_states():
    ours, theirs = StateSealer([NEW, OLD]), AESGCMRequestStateCodec([OLD])
    assert (
        ours.open(PREFIX + theirs.seal(b'{"call":"hold_1","round":2,"asked":true,"state":"theirs"}'))
        == TICKET
    )
    sealed = StateSealer([OLD]).seal(TICKET)
    assert b'"hold_1"' in theirs.unseal(sealed.removeprefix(PREFIX))
    assert ours.open(sealed) == TICKET


@each_row(
    "spoilt",
    [
        lambda state: state[:-1] + ("A" if state[-1] != "A" else "B"),
        lambda state: state + "=",
        lambda state: state + "é",
        lambda state: state[:20],
        lambda state: state.replace("v1.", "v2."),
        lambda state: state.replace("v1.", ""),
        lambda _: PREFIX,
        lambda _: StateSealer([b"x" * 32]).seal(TICKET),
    ],
)
def test_a_state_sealed_with_another_key_is_invalid(spoilt):
    ours = StateSealer([NEW])
    with pytest.raises(InvalidStateError):
        ours.open(spoilt(ours.seal(TICKET)))


async def test_objects_from_startup_are_frozen_while_the_gateway_runs():
    async with RecordingServer() as recorder:
        config = parse_config(
            f"servers: {{n: {{url: '{recorder.url}'}}}}\npolicy: {{default: deny}}\nstore: 'memory:'", {}, str
        )
        async with assemble(config) as gateway:
            async with run_loops(gateway, [], ""), asyncio.timeout(HANG):
                while not gc.get_freeze_count():
                    await asyncio.sleep(0)
                assert gateway.discovery_done.is_set()
            assert gc.get_freeze_count() == 0
