"""Logins to the inbox and one-time codes in memory."""

from collections.abc import Mapping
from typing import TypeVar

from msgspec.structs import replace

from approvals.model import LoginSession, OneTimeCode
from approvals.signals import Signal, SignalKind
from approvals.store.memory.base import MemoryBase

Expiring = TypeVar("Expiring", LoginSession, OneTimeCode)


class MemoryLogins(MemoryBase):
    """See `approvals.store.LoginStore`."""

    def __init__(self) -> None:
        super().__init__()
        self._logins: dict[str, LoginSession] = {}
        self._codes: dict[str, OneTimeCode] = {}

    async def save_login(self, session: LoginSession) -> None:
        self._logins = _unexpired(self._logins, session.created_at) | {session.id_sha256: session}

    async def find_login(self, id_sha256: str) -> LoginSession | None:
        return self._logins.get(id_sha256)

    def record_activity(self, id_sha256: str, at: float) -> None:
        if (login := self._logins.get(id_sha256)) is not None:
            self._logins[id_sha256] = replace(login, seen_at=max(login.seen_at, at))

    async def delete_login(self, id_sha256: str) -> None:
        self._logins.pop(id_sha256, None)
        self._feed.publish(Signal(SignalKind.LOGOUT, id_sha256))

    async def save_code(self, code: OneTimeCode) -> None:
        self._codes = _unexpired(self._codes, code.created_at) | {code.id_sha256: code}

    async def take_code(self, id_sha256: str) -> OneTimeCode | None:
        return self._codes.pop(id_sha256, None)

    def _reset_logins(self, at: float) -> None:
        """Drop the logins and codes that were created after *at*, and move later activity back to it."""
        self._logins = {
            login.id_sha256: replace(login, seen_at=min(login.seen_at, at))
            for login in self._logins.values()
            if login.created_at <= at
        }
        self._codes = {code.id_sha256: code for code in self._codes.values() if code.created_at <= at}


def _unexpired(kept: Mapping[str, Expiring], now: float) -> dict[str, Expiring]:
    return {id_sha256: value for id_sha256, value in kept.items() if value.expires_at > now}
