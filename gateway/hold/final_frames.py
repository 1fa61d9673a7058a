"""Builds the frame that ends a client's wait: the outcome, the refusal, WAITING, or another round."""

from collections.abc import Callable, Mapping
from typing import Any

from approvals.model import HeldCall
from gateway.call.hold_settings import HoldSettings
from gateway.call.request import CallRequest
from gateway.hold import elicitation, known_clients, messages, request_state
from gateway.hold.ladder import Rung
from gateway.hold.request_state import RequestState, StateSealer
from gateway.hold.response_stream import FinalFrame
from gateway.wire import frames, protocol


class FinalFrames:
    """Builds final frames by the current settings."""

    def __init__(
        self,
        holds: Callable[[], HoldSettings],
        sealer: Callable[[], StateSealer],
        has_output_schema: Callable[[str, str], bool],
    ) -> None:
        """*has_output_schema* says whether a server's tool declares the shape of its results."""
        self._holds = holds
        self._sealer = sealer
        self._has_output_schema = has_output_schema

    def build(self, rung: Rung, request: CallRequest, held: HeldCall) -> FinalFrame:
        """Return the frame for the rung on which the wait ended."""
        if rung is Rung.ROUND:
            return FinalFrame(frames.build_result(request.frame.id, self._round(request, held)))
        if held.outcome is None or rung is Rung.LATER:
            status = messages.status_result(held, as_result=self._waits_as_result(request))
            return FinalFrame(frames.build_result(request.frame.id, status))
        question = request_state.input_required_result(held.outcome.body)
        if question is not None and request.era is protocol.Era.MODERN:
            return FinalFrame(frames.build_result(request.frame.id, self._sealed(held, question)))
        outcome = messages.mark_repeated(held, held.outcome) if held.repeated else held.outcome
        answer = frames.build_response(request.frame.id, outcome)
        return FinalFrame(answer, status=protocol.http_status(request.era, outcome))

    def shows_link(self, request: CallRequest) -> bool:
        """Whether the requester gets a link to the inbox: the config says so, and its client can show one."""
        return bool(self._holds().link) and protocol.supports_url_elicitation(request.capabilities)

    def _waits_as_result(self, request: CallRequest) -> bool:
        """Whether this client gets WAITING without `isError`. A tool with an output schema could not return it."""
        settings = self._holds()
        client = known_clients.client_hold(request.client, settings.hold_for, settings.clients)
        return client.as_result and not self._has_output_schema(request.exchange.server, request.frame.name)

    def _round(self, request: CallRequest, held: HeldCall) -> Mapping[str, Any]:
        """Return an input_required result that sends the client into its next round."""
        state = self._sealer().seal(RequestState(call=held.id, round=request.round + 1))
        asks = {"inputRequests": {request_state.QUESTION: elicitation.url_request(held, self._holds().link)}}
        link = asks if self.shows_link(request) else {}
        return {"resultType": "input_required", "requestState": state, **link}

    def _sealed(self, held: HeldCall, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the server's question with our state around the server's: the answers stay under this approval."""
        ours = RequestState(call=held.id, asked=True, state=question.get("requestState"))
        return {**question, "requestState": self._sealer().seal(ours)}
