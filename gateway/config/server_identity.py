"""The identity of a server: the part of its config that an approval is bound to (PURE).

A secret counts by where it comes from, so rotating a token changes nothing. Everything else counts as the text that
the config yields, so `AWS_PROFILE: ${PROFILE}` changes with the environment variable.
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

#: What may be a secret in an address: a long word with a digit in it.
_LONG = re.compile(r"[\w-]{20,}")
#: A name and what is assigned to it: `token=...`, `--api-key=...`, `Authorization: ...`.
_NAMED = re.compile(r"-*([\w-]+)\s*[:=](?!//)")


def compute_identity(server: ServerOptions, key: bytes, started_in: str = "") -> str:
    """Return the HMAC-SHA-256 of the options that count, in hex; the *key* keeps their values from being guessed.

    *started_in* is the folder of the gateway. It counts for a child process that runs there, or in a folder relative to it.
    """
    found = {option: read(server) for option, read in IDENTITY_OPTIONS.items()}
    if server.command is not None:
        found["cwd"] = posixpath.normpath(posixpath.join(started_in, found["cwd"]))
    return hmac.digest(key, msgspec.json.encode(found, order="deterministic"), "sha256").hex()


def describe_location(server: ServerOptions) -> str:
    """Return, in one line without secrets, where a server is: its URL or command, its folder and its account."""
    where = _shown(server.url) if server.url is not None else _command_line(server.command or [])
    folder = f" in {_shown(server.cwd)}" if server.cwd else ""
    account = f" (account {_shown(server.account)})" if server.account else ""
    return f"{where}{folder}{account}"


# What counts.


def _counted(text: str) -> str:
    """Return *text* filled in, but with each reference to a secret as it is written."""
    if not isinstance(text, ResolvedText):
        return text
    return "".join(written if _is_secret(written) else value for written, value in text.pieces)


def _named(values: Mapping[str, str]) -> Mapping[str, str]:
    """Return values by name. One whose name is that of a secret counts as its reference, or not at all."""
    return {
        name: _reference(text) if redact.is_secret_name(name) else _counted(text)
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
        **{name: _counted(text) for name, text in texts.items()},
        "resource": _counted(oauth.resource or url),
        "client_secret": _reference(oauth.client_secret),
    }


#: The options that count, and how each is read. The others say nothing about where a call runs.
IDENTITY_OPTIONS: Mapping[str, Callable[[ServerOptions], Any]] = {
    "url": lambda server: _counted(server.url or ""),
    "transport": lambda server: server.transport,
    "command": lambda server: list(map(_counted, server.command or [])),
    "cwd": lambda server: _counted(server.cwd or ""),
    "env": lambda server: _named(server.env),
    "headers": lambda server: _named({name.lower(): text for name, text in server.headers.items()}),
    "oauth": lambda server: _oauth(server.oauth, server.url or ""),
    "account": lambda server: _counted(server.account or ""),
}


# What is shown.


def _command_line(command: list[str]) -> str:
    """Return a command as it is typed, without the values of options that are named like secrets."""
    shown = [
        redact.REDACTED if flag.startswith("-") and redact.is_secret_name(flag) else _shown(word)
        for flag, word in pairwise(["", *command])
    ]
    return " ".join(word if word == redact.REDACTED else shlex.quote(word) for word in shown)


def _shown(text: str) -> str:
    """Return *text* with its references as written, and without what may be a secret."""
    written = text.written if isinstance(text, ResolvedText) else text
    if (named := _NAMED.match(written)) and redact.is_secret_name(named[1]):
        return f"{named[0]}{redact.REDACTED}"
    if "://" in written:
        written = re.sub(r"[?#].*", "?...", written, flags=re.DOTALL)
    return _LONG.sub(_unless_a_word, redact.redact_text(written))


def _unless_a_word(found: re.Match[str]) -> str:
    return redact.REDACTED if any(map(str.isdigit, found[0])) else found[0]
