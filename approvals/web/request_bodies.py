"""Parses request bodies strictly: UTF-8 only, no unknown or repeated members, limited size."""

from json import loads as parse
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from approvals.reviews import MAX_REASON
from approvals.web.responses import HttpError

#: Bytes of a body. Slack's are the largest, because they contain the whole message.
MAX_BODY = 256 * 1024
MAX_FIELDS = 20

Body = TypeVar("Body", bound=msgspec.Struct)


async def parse_form(request: web.Request) -> dict[str, str]:
    """Parse a posted form."""
    _require_content_type(request, "application/x-www-form-urlencoded")
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


async def parse_json(request: web.Request, kind: type[Body]) -> Body:
    """Parse a JSON body as *kind*. Raises `HttpError` 400 that names an unknown member."""
    _require_content_type(request, "application/json")
    try:
        body = msgspec.json.decode(text := (await request.read()).decode(), type=kind)
    except UnicodeDecodeError as error:
        raise HttpError(400, "The body must be UTF-8.") from error
    except msgspec.ValidationError as error:
        raise HttpError(400, f"{error}.") from error
    except msgspec.DecodeError as error:
        raise HttpError(400, "The body is not valid JSON.") from error
    parse(text, object_pairs_hook=_reject_duplicates)
    return body


def _reject_duplicates(members: list[tuple[str, Any]]) -> None:
    if len(dict(members)) != len(members):
        raise HttpError(400, "The body has a duplicate member.")


def normalize_reason(given: str) -> str:
    """Normalize the line ends of a reason. Raises `HttpError` 400 if it is too long."""
    text = given.replace("\r\n", "\n").replace("\r", "\n").strip()
    if len(text.encode("utf-8", "replace")) > MAX_REASON:
        raise HttpError(400, f"A reason can have at most {MAX_REASON} bytes.")
    return text


def _require_content_type(request: web.Request, content_type: str) -> None:
    if request.content_type != content_type:
        raise HttpError(415, f"Send the body as {content_type}.")
    if (request.charset or "utf-8").lower() not in {"utf-8", "utf8"}:
        raise HttpError(415, "Send the body as UTF-8.")
