"""Authenticates agents by bearer token: their own tokens, or JWTs of the configured issuers."""

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gateway.auth.protected_resource import build_challenge
from gateway.auth.tokens import InvalidToken, TokenVerifier, VerifiedToken
from gateway.config.options import AgentOptions, Config

if TYPE_CHECKING:
    from gateway.auth.jwks import JwksCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An authenticated agent. `servers` has the names of the servers that it may use; None means all."""

    name: str
    owner: str | None = None
    servers: frozenset[str] | None = None

    def may_use(self, server: str) -> bool:
        """Return whether this agent may use *server*."""
        return self.servers is None or server in self.servers


#: Every caller, if the config has no agents and no issuers.
LOCAL = Agent(name="local")


class AuthenticationFailed(Exception):
    """Authentication failed: HTTP status, message for the caller, WWW-Authenticate challenge (RFC 6750, section 3)."""

    def __init__(self, status: int, message: str, challenge: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.challenge = challenge


class Agents:
    """The agents of one config."""

    def __init__(
        self, config: Config, jwks: "Callable[[str], JwksCache]", clock: Callable[[], float]
    ) -> None:
        self.config = config
        self._tokens = TokenVerifier(config, jwks, clock)
        self._by_hash = [
            (agent.token_sha256, _configured_agent(agent)) for agent in config.agents if agent.token_sha256
        ]

    async def authenticate(self, authorization: Sequence[str], server: str) -> Agent:
        """Return the agent whose bearer token is in the Authorization headers; raises `AuthenticationFailed`.

        Without agents and issuers in the config, every caller is `LOCAL`; the listener is then loopback only.
        """
        agent = self.authenticate_at_once(authorization, server)
        if agent is None:
            verified = await self._verify(_bearer_token(authorization), server)
            agent = self._verified_agent(verified, server)
        return agent

    def authenticate_at_once(self, authorization: Sequence[str], server: str) -> Agent | None:
        """Return the agent with a configured token, or `LOCAL`; None for a token that may be a JWT.

        Raises `AuthenticationFailed`. The answer holds as long as this object is the current one.
        """
        if not self.config.agents and not self.config.jwt:
            return LOCAL
        token = _bearer_token(authorization)
        if (agent := self._agent_of_token(token)) is not None:
            return agent
        if not token or not self.config.jwt:
            hint = "Send the token of an agent in the Authorization header."
            raise AuthenticationFailed(401, hint, build_challenge(self.config, server))
        return None

    def _agent_of_token(self, token: bytes) -> Agent | None:
        digest = hashlib.sha256(token).hexdigest()
        found = [agent for known, agent in self._by_hash if hmac.compare_digest(known, digest)]
        return found[0] if found else None

    async def _verify(self, token: bytes, server: str) -> VerifiedToken:
        try:
            return await self._tokens.verify(token.decode("ascii", "replace"), server)
        except InvalidToken as error:
            challenge = build_challenge(self.config, server, "invalid_token")
            raise AuthenticationFailed(401, str(error), challenge) from None

    def _verified_agent(self, verified: VerifiedToken, server: str) -> Agent:
        issuer = verified.issuer
        if not verified.scopes().issuperset(issuer.scopes):
            missing = build_challenge(self.config, server, "insufficient_scope", issuer)
            raise AuthenticationFailed(403, "The token lacks a required scope.", missing)
        agent = self._agent_of_subject(verified)
        if agent.owner is not None or issuer.owner_claim is None:
            return agent
        owner = verified.text(issuer.owner_claim)
        is_unverified = issuer.owner_claim == "email" and verified.claims.get("email_verified") is False
        if owner is None or is_unverified:
            # Without an owner, people could approve the calls of their own agents.
            raise AuthenticationFailed(403, "The token does not name a verified owner of this agent.")
        return replace(agent, owner=owner)

    def _agent_of_subject(self, verified: VerifiedToken) -> Agent:
        subject = verified.text(verified.issuer.agent_claim)
        issuers = {None, verified.issuer.issuer}
        for agent in self.config.agents:
            if subject is not None and agent.subject == subject and agent.issuer in issuers:
                return _configured_agent(agent)
        # An unknown subject must not take the name of a configured agent.
        names = {agent.name.casefold() for agent in self.config.agents}
        if subject is None or not verified.issuer.any_subject or subject.casefold() in names:
            why = "The token is valid, but its subject is not an agent of this gateway."
            raise AuthenticationFailed(403, why)
        return Agent(name=subject)


def _configured_agent(options: AgentOptions) -> Agent:
    servers = None if options.servers is None else frozenset(options.servers)
    return Agent(name=options.name, owner=options.owner, servers=servers)


def _bearer_token(authorization: Sequence[str]) -> bytes:
    scheme, _, token = (authorization[0] if len(authorization) == 1 else "").partition(" ")
    return token.strip().encode("utf-8", "surrogateescape") if scheme.lower() == "bearer" else b""
