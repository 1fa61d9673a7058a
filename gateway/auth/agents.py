"""Which agent is this: a credential becomes an agent, and nothing else does."""

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gateway.auth.jwks import JwksCache
from gateway.auth.protected_resource import challenge
from gateway.auth.tokens import InvalidToken, TokenVerifier, VerifiedToken
from gateway.config.options import AgentOptions, Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An authenticated caller. `servers` are those it may use; None means all."""

    name: str
    owner: str | None = None
    servers: frozenset[str] | None = None

    def may_use(self, server: str) -> bool:
        """Say whether this agent may use *server*."""
        return self.servers is None or server in self.servers


LOCAL = Agent(name="local")


class AuthenticationFailed(Exception):
    """Nobody's credential: the HTTP status, a sentence for the caller, and the challenge that goes with them."""

    def __init__(self, status: int, message: str, challenge: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.challenge = challenge


class Agents:
    """The agents of one config, known by tokens of their own or by JWTs of its issuers."""

    def __init__(self, config: Config, jwks: Callable[[str], JwksCache], clock: Callable[[], float]) -> None:
        self.config = config
        self._tokens = TokenVerifier(config, jwks, clock)
        self._by_hash = [(one.token_sha256, _agent(one)) for one in config.agents if one.token_sha256]

    async def authenticate(self, authorization: Sequence[str], server: str) -> Agent:
        """Return the agent whose bearer token the Authorization headers hold; raises `Refused`.

        A config without agents has one, `local`, that needs none; such a config listens on this machine only.
        """
        if not self.config.agents and not self.config.jwt:
            return LOCAL
        token = _bearer(authorization)
        given = hashlib.sha256(token).hexdigest()
        found = [agent for known, agent in self._by_hash if hmac.compare_digest(known, given)]
        if found:
            return found[0]
        if not token or not self.config.jwt:
            raise AuthenticationFailed(401, "Give an agent's token.", challenge(self.config, server))
        try:
            vouched = await self._tokens.verify(token.decode("ascii", "replace"), server)
        except InvalidToken as error:
            raise AuthenticationFailed(
                401, str(error), challenge(self.config, server, "invalid_token")
            ) from None
        return self._admitted(vouched, server)

    def _admitted(self, vouched: VerifiedToken, server: str) -> Agent:
        issuer = vouched.issuer
        if not vouched.scopes().issuperset(issuer.scopes):
            missing = challenge(self.config, server, "insufficient_scope", issuer)
            raise AuthenticationFailed(403, "The token lacks a scope that is needed here.", missing)
        agent = self._named(vouched)
        if agent.owner is not None or issuer.owner_claim is None:
            return agent
        owner = vouched.text(issuer.owner_claim)
        if owner is None or (issuer.owner_claim == "email" and vouched.claims.get("email_verified") is False):
            # Without its owner, nobody would be kept from approving their own agent's calls.
            raise AuthenticationFailed(403, "The token does not say for certain whose agent this is.")
        return replace(agent, owner=owner)

    def _named(self, vouched: VerifiedToken) -> Agent:
        subject = vouched.text(vouched.issuer.agent_claim)
        for one in self.config.agents:
            if subject is not None and one.subject == subject and one.issuer in {None, vouched.issuer.issuer}:
                return _agent(one)
        # A stranger may not go by the name of an agent that the config knows otherwise.
        names = {one.name.casefold() for one in self.config.agents}
        if subject is None or not vouched.issuer.any_subject or subject.casefold() in names:
            raise AuthenticationFailed(403, "The token is valid, but its bearer is not an agent here.")
        return Agent(name=subject)


def _agent(options: AgentOptions) -> Agent:
    servers = None if options.servers is None else frozenset(options.servers)
    return Agent(name=options.name, owner=options.owner, servers=servers)


def _bearer(authorization: Sequence[str]) -> bytes:
    scheme, _, token = (authorization[0] if len(authorization) == 1 else "").partition(" ")
    return token.strip().encode("utf-8", "surrogateescape") if scheme.lower() == "bearer" else b""
