"""Continues a held call when a request refers to it.

A client of 2026-07-28 sends the sealed request state of its last round (MCP, `input_required`). Our stdio front sends
the id of the held call. The arguments must be those of the held call.
"""

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from approvals import digest
from approvals.model import CallId, HeldCall
from approvals.service import ApprovalService
from gateway.call import envelope
from gateway.call.request import CallRequest
from gateway.errors import UnknownHoldError
from gateway.hold import new_calls, request_state
from gateway.hold.answering import HeldAnswers
from gateway.hold.outbound import Outbound, as_sent
from gateway.hold.request_state import InvalidStateError, RequestState, StateSealer
from gateway.upstreams.reply import LateReply, Reply
from gateway.wire import protocol


class Continuations:
    """Finds the held call that a request refers to, and continues it."""

    def __init__(
        self,
        service: ApprovalService,
        held_answers: HeldAnswers,
        sealer: Callable[[], StateSealer],
        new_id: Callable[[], CallId],
    ) -> None:
        self._service = service
        self._held_answers = held_answers
        self._sealer = sealer
        self._new_id = new_id

    async def answer(self, request: CallRequest) -> Reply | LateReply | None:
        """Answer a request that refers to a held call; None if it does not, or has other arguments.

        Raises `InvalidStateError` or `UnknownCall` for an invalid state, `UnknownHoldError` for an invalid id, and
        `AlreadyDecided` if the call cannot be continued.
        """
        state = self._open_state(request)
        if (held := await self._find_for_front(request)) is not None:
            round_before = state.round if state else 0
            return self._held_answers.answer_front(replace(without_state(request), round=round_before), held)
        if state is None or (held := await self._find_by_state(request, state)) is None:
            return None
        if not state.asked:
            return await self._held_answers.answer(replace(without_state(request), round=state.round), held)
        return await self._pass_answers_on(request, held, state)

    async def continue_call(self, held: HeldCall, answered: Outbound, *, task: bool = False) -> HeldCall:
        """Store and return the call that continues *held*; *answered* has the client's answers."""
        following = new_calls.from_answers(
            held, answered, call_id=self._new_id(), now=self._service.clock(), task=task
        )
        return await self._service.continue_call(held.id, following)

    async def _pass_answers_on(
        self, request: CallRequest, held: HeldCall, state: RequestState
    ) -> Reply | LateReply:
        """Continue with the client's answers and the server's own state, which was inside ours."""
        server_state = None if state.state is None else msgspec.json.encode(state.state)
        request = replace(request, frame=envelope.with_params(request.frame, {"requestState": server_state}))
        return await self._held_answers.answer(request, await self.continue_call(held, as_sent(request)))

    def _open_state(self, request: CallRequest) -> RequestState | None:
        sealed = request_state.own_state(request.frame)
        return None if sealed is None else self._sealer().open(sealed)

    async def _find_by_state(self, request: CallRequest, state: RequestState) -> HeldCall | None:
        held = await self._service.get(CallId(state.call))
        if not _is_from_same_agent(request, held):
            raise InvalidStateError
        return held if _is_same_call(request, held) else None

    async def _find_for_front(self, request: CallRequest) -> HeldCall | None:
        call_id = request.exchange.headers.get(protocol.HOLD_HEADER)
        if call_id is None or not request.from_our_front:
            return None
        held = await self._service.store.get(CallId(call_id))
        if held is None or not _is_from_same_agent(request, held) or not _is_same_call(request, held):
            raise UnknownHoldError
        return held


def without_state(request: CallRequest) -> CallRequest:
    """Drop our requestState and inputResponses."""
    frame = envelope.with_params(request.frame, {"requestState": None, "inputResponses": None})
    return replace(request, frame=frame)


def _is_from_same_agent(request: CallRequest, held: HeldCall) -> bool:
    return (held.call.agent, held.call.server) == (request.exchange.agent.name, request.exchange.server)


def _is_same_call(request: CallRequest, held: HeldCall) -> bool:
    """Return whether the tool and the arguments are those of the held call; JSON is compared in canonical form."""
    arguments = digest.canonical_json(request.frame.arguments)
    return held.call.tool == request.frame.name and digest.canonical_json(held.call.arguments) == arguments
