"""Computes the identity of a server: the options that an approval is bound to (PURE).

A secret enters the identity as its reference, so rotating a token does not change the identity. Any other option
enters as resolved text, so `AWS_PROFILE: ${PROFILE}` changes the identity when the environment variable changes.
"""

import hmac
import posixpath
import re
import shlex
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import msgspec

from approvals import redact
from gateway.config.options import OAuthOptions, ServerOptions
from gateway.config.yaml import ResolvedText

#: A word in an address that may be a secret if it contains a digit.
_LONG_WORD = re.compile(r"[\w-]{20,}")
#: The name in an assignment: `token=...`, `--api-key=...`, `Authorization: ...`.
_ASSIGNMENT = re.compile(r"-*([\w-]+)\s*[:=](?!//)")


def compute_identity(server: ServerOptions, key: bytes, started_in: str = "") -> str:
    """Return the HMAC-SHA-256 of the identity options, in hex; *key* prevents guessing their values.

    *started_in* is the working folder of the gateway; the `cwd` of a child process is resolved against it.
    """
    found = {option: read(server) for option, read in IDENTITY_OPTIONS.items()}
    if server.command is not None:
        found["cwd"] = posixpath.normpath(posixpath.join(started_in, found["cwd"]))
    return hmac.digest(key, msgspec.json.encode(found, order="deterministic"), "sha256").hex()


def describe_location(server: ServerOptions) -> str:
    """Return the location of a server in one line, without secrets: its URL or command, folder and account."""
    where = _redact(server.url) if server.url is not None else _command_line(server.command or [])
    folder = f" in {_redact(server.cwd)}" if server.cwd else ""
    account = f" (account {_redact(server.account)})" if server.account else ""
    return f"{where}{folder}{account}"


# The identity.


def _identity_text(text: str) -> str:
    """Return *text* resolved, but with each reference to a secret as written."""
    if not isinstance(text, ResolvedText):
        return text
    return "".join(written if _is_secret(written) else value for written, value in text.pieces)


def _identity_texts(values: Mapping[str, str]) -> Mapping[str, str]:
    """Return environment variables or headers; a secret is replaced by its reference, or by ""."""
    return {
        name: _reference(text) if redact.is_secret_name(name) else _identity_text(text)
        for name, text in values.items()
    }


def _reference(secret: str) -> str:
    return secret.written if isinstance(secret, ResolvedText) else ""


def _is_secret(written: str) -> bool:
    return written.startswith("${file:") or redact.is_secret_name(written)


def _oauth(oauth: OAuthOptions | None, url: str) -> Mapping[str, Any] | None:
    if oauth is None:
        return None
    texts = {"token_url": oauth.token_url, "client_id": oauth.client_id, "scope": oauth.scope or ""}
    return {
        **{name: _identity_text(text) for name, text in texts.items()},
        "resource": _identity_text(oauth.resource or url),
        "client_secret": _reference(oauth.client_secret),
    }


#: The options in the identity, and how each is read. The others do not affect where a call runs.
IDENTITY_OPTIONS: Mapping[str, Callable[[ServerOptions], Any]] = {
    "url": lambda server: _identity_text(server.url or ""),
    "transport": lambda server: server.transport,
    "command": lambda server: list(map(_identity_text, server.command or [])),
    "cwd": lambda server: _identity_text(server.cwd or ""),
    "env": lambda server: _identity_texts(server.env),
    "headers": lambda server: _identity_texts({name.lower(): text for name, text in server.headers.items()}),
    "oauth": lambda server: _oauth(server.oauth, server.url or ""),
    "account": lambda server: _identity_text(server.account or ""),
}


# The location.


def _command_line(command: list[str]) -> str:
    """Return a command as a shell line, without the values of options whose names look secret."""
    shown = [
        redact.REDACTED if flag.startswith("-") and redact.is_secret_name(flag) else _redact(word)
        for flag, word in pairwise(["", *command])
    ]
    return " ".join(word if word == redact.REDACTED else shlex.quote(word) for word in shown)


def _redact(text: str) -> str:
    """Return *text* with its references as written, and with possible secrets redacted."""
    written = text.written if isinstance(text, ResolvedText) else text
    if (assignment := _ASSIGNMENT.match(written)) and redact.is_secret_name(assignment[1]):
        return f"{assignment[0]}{redact.REDACTED}"
    if "://" in written:
        written = re.sub(r"[?#].*", "?...", written, flags=re.DOTALL)
    return _LONG_WORD.sub(_redact_unless_word, redact.redact_text(written))


def _redact_unless_word(found: re.Match[str]) -> str:
    return redact.REDACTED if any(map(str.isdigit, found[0])) else found[0]
