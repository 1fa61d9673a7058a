"""A client may return a state that an earlier version sealed, under the product's earlier name."""

import pytest

from gateway.hold.elicitation import is_response
from gateway.hold.request_state import PREFIX, InvalidStateError, RequestState, StateSealer, own_state
from gateway.wire import frames

KEY = b"k" * 32


def call(state):
    return frames.decode(
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pay","requestState":"%s"}}'
        % state.encode()
    )


def test_a_state_sealed_under_the_earlier_name_is_still_the_gateways_own():
    sealer, state = StateSealer([KEY]), RequestState(call="hp_1", round=2)
    sealed = "holdpoint." + sealer.seal(state).removeprefix(PREFIX)
    assert own_state(call(sealed)) == sealed
    assert sealer.open(sealed) == state


def test_a_state_with_both_prefixes_is_invalid():
    sealer = StateSealer([KEY])
    with pytest.raises(InvalidStateError):
        sealer.open("holdpoint." + sealer.seal(RequestState(call="hp_1")))


def test_a_state_of_the_server_is_not_the_gateways_own():
    assert own_state(call("theirs.v1.x")) is None


@pytest.mark.parametrize(("request_id", "own"), [("okayed-1", True), ("holdpoint-1", True), ("1", False)])
def test_an_answer_to_a_link_of_the_earlier_name_is_not_relayed(request_id, own):
    frame = frames.decode(b'{"jsonrpc":"2.0","id":"%s","result":{}}' % request_id.encode())
    assert is_response(frame) is own
