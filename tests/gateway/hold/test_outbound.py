"""A call that runs without its client is sent from its stored envelope."""

import msgspec
import pytest

from gateway.call import envelope
from gateway.hold.outbound import as_stored
from gateway.wire import frames
from replacing import replace
from store_fixtures import a_call

FRAME = frames.decode(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pay"}}')


@pytest.mark.parametrize("opening", [b"", b'{"capabilities":{}}'])
def test_a_stored_call_runs_with_the_opening_of_its_session_or_none(opening):
    packed = envelope.pack(FRAME, {"mcp-session-id": "s"}, opening)
    held = a_call(1)
    held = replace(held, call=msgspec.structs.replace(held.call, envelope=packed))
    outbound = as_stored(held, None)
    assert (outbound.opening, outbound.headers) == (opening, {"mcp-session-id": "s"})
