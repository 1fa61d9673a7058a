"""Reads what browsers and programs send, strictly: one encoding, no unknown and no repeated member, small."""

from json import loads as parse
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from approvals.service import MAX_REASON
from approvals.web.responses import HttpError

#: The largest body, in bytes. Slack's answers carry the whole message and are the largest.
MAX_BODY = 256 * 1024
MAX_FIELDS = 20

Body = TypeVar("Body", bound=msgspec.Struct)


async def form(request: web.Request) -> dict[str, str]:
    """Return the fields of a posted form."""
    _require(request, "application/x-www-form-urlencoded")
    try:
        text = (await request.read()).decode()
        pairs = parse_qsl(
            text,
            keep_blank_values=True,
            strict_parsing=bool(text),
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError as error:
        raise HttpError(400) from error
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise HttpError(400)
    return fields


async def json(request: web.Request, kind: type[Body]) -> Body:
    """Return the posted JSON as *kind*; a member that it does not have is refused by name."""
    _require(request, "application/json")
    try:
        body = msgspec.json.decode(text := (await request.read()).decode(), type=kind)
    except UnicodeDecodeError as error:
        raise HttpError(400, "The body must be UTF-8.") from error
    except msgspec.ValidationError as error:
        raise HttpError(400, f"{error}.") from error
    except msgspec.DecodeError as error:
        raise HttpError(400, "The body is not JSON.") from error
    parse(text, object_pairs_hook=_each_once)
    return body


def _each_once(members: list[tuple[str, Any]]) -> None:
    if len(dict(members)) != len(members):
        raise HttpError(400, "The body repeats a member.")


def reason(given: str) -> str:
    """Return a reason as it is kept: plain line ends, no longer than the service takes."""
    text = given.replace("\r\n", "\n").replace("\r", "\n").strip()
    if len(text.encode("utf-8", "replace")) > MAX_REASON:
        raise HttpError(400, f"A reason may have {MAX_REASON} bytes at most.")
    return text


def _require(request: web.Request, content_type: str) -> None:
    if request.content_type != content_type:
        raise HttpError(415, f"Send this as {content_type}.")
    if (request.charset or "utf-8").lower() not in {"utf-8", "utf8"}:
        raise HttpError(415, "Send this as UTF-8.")
