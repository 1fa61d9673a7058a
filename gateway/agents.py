"""Which agent is this: a credential becomes an agent, and nothing else does."""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.options import Config


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


class Agents:
    """The agents of one config."""

    def __init__(self, config: Config) -> None:
        self._by_hash = [
            (
                agent.token_sha256,
                Agent(
                    name=agent.name,
                    owner=agent.owner,
                    servers=None if agent.servers is None else frozenset(agent.servers),
                ),
            )
            for agent in config.agents
        ]

    def authenticate(self, authorization: Sequence[str]) -> Agent | None:
        """Return the agent whose bearer token the Authorization headers hold, or None.

        A config without agents has one, `local`, that needs none; such a config listens on this machine only.
        """
        if not self._by_hash:
            return LOCAL
        given = hashlib.sha256(_bearer(authorization)).hexdigest()
        found = [agent for known, agent in self._by_hash if hmac.compare_digest(known, given)]
        return found[0] if found else None


def _bearer(authorization: Sequence[str]) -> bytes:
    scheme, _, token = (authorization[0] if len(authorization) == 1 else "").partition(" ")
    return token.strip().encode("utf-8", "surrogateescape") if scheme.lower() == "bearer" else b""
