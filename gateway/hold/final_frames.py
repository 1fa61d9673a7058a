"""Builds the frame that ends a client's wait: the outcome, a refusal, WAITING, or another round."""

from collections.abc import Callable, Mapping
from typing import Any

from approvals.model import HeldCall
from gateway.call.hold_settings import HoldSettings
from gateway.hold import elicitation, known_clients, messages, request_state
from gateway.hold.ladder import Rung
from gateway.hold.request_state import RequestState, StateSealer
from gateway.hold.response_stream import FinalFrame
from gateway.hold.waiting_request import WaitingRequest
from gateway.wire import frames, protocol


class FinalFrames:
    """Builds final frames with the current settings."""

    def __init__(
        self,
        holds: Callable[[], HoldSettings],
        sealer: Callable[[], StateSealer],
        has_output_schema: Callable[[str, str], bool],
    ) -> None:
        """*has_output_schema* says whether a tool (server, name) declares an output schema."""
        self._holds = holds
        self._sealer = sealer
        self._has_output_schema = has_output_schema

    def build(self, rung: Rung, request: WaitingRequest, held: HeldCall) -> FinalFrame:
        """Return the frame for the rung on which the wait ended."""
        if rung is Rung.ROUND:
            return FinalFrame(frames.build_result(request.id, self._next_round(request, held)))
        if held.outcome is None or rung is Rung.LATER:
            status = messages.status_result(held, as_result=self._gets_waiting_as_result(request))
            return FinalFrame(frames.build_result(request.id, status))
        question = request_state.input_required_result(held.outcome.body)
        if question is not None and request.era is protocol.Era.MODERN:
            return FinalFrame(frames.build_result(request.id, self._wrap_state(held, question)))
        outcome = messages.mark_repeated(held, held.outcome) if held.repeated else held.outcome
        answer = frames.build_response(request.id, outcome)
        return FinalFrame(answer, status=protocol.http_status(request.era, outcome))

    def shows_link(self, request: WaitingRequest) -> bool:
        """Return whether the requester gets a link to the inbox: the config has one, and the client supports it."""
        return bool(self._holds().link) and request.opens_links

    def _gets_waiting_as_result(self, request: WaitingRequest) -> bool:
        """Return whether this client gets WAITING without `isError`. It would violate a tool's output schema."""
        settings = self._holds()
        client = known_clients.client_hold(request.client, settings.hold_for, settings.clients)
        return client.as_result and not self._has_output_schema(request.server, request.tool)

    def _next_round(self, request: WaitingRequest, held: HeldCall) -> Mapping[str, Any]:
        """Return the input_required result that starts the client's next round."""
        state = self._sealer().seal(RequestState(call=held.id, round=request.round + 1))
        link = {request_state.QUESTION: elicitation.url_request(held, self._holds().link)}
        requests = {"inputRequests": link} if self.shows_link(request) else {}
        return {"resultType": "input_required", "requestState": state, **requests}

    def _wrap_state(self, held: HeldCall, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """Wrap the server's state in ours, so that the client's answers stay under this approval."""
        ours = RequestState(call=held.id, asked=True, state=question.get("requestState"))
        return {**question, "requestState": self._sealer().seal(ours)}
