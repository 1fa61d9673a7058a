"""Decodes a plain tools/call in a fraction of the time that the strict parser takes (PURE).

A frame is plain if it has only the members of nearly every call, and no member twice. Any other frame is left to the
strict parser, which alone refuses frames: a reader that is unsure returns None.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

#: The exceptions of decoding JSON with msgspec.
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
#: Bytes of a long text.
LONG = 4096
#: The endings of a member's name, with its colon.
_SEPARATORS = (b'":', b" :", b"\t:", b"\n:", b"\r:")


class PlainCall(msgspec.Struct, frozen=True, gc=False):
    """A plain tools/call. `arguments` and `rest` hold the exact bytes, `params` the decoded values."""

    id: str | int
    name: str
    arguments: bytes
    params: Mapping[str, Any]
    rest: Mapping[str, bytes]


class _Params(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    #: Empty if the member is absent.
    arguments: msgspec.Raw = msgspec.Raw()
    meta: msgspec.Raw = msgspec.field(name="_meta", default=msgspec.Raw())


class _Call(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    jsonrpc: Literal["2.0"]
    id: str | int
    method: Literal["tools/call"]
    params: _Params


_decode_call = msgspec.json.Decoder(_Call).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


def decode(data: bytes, max_depth: int) -> PlainCall | None:
    """Decode a plain tools/call that is nested no deeper than *max_depth* levels; None for any other bytes."""
    try:
        call = _decode_call(data)
        name, arguments, meta = call.params.name, call.params.arguments, call.params.meta
        params: dict[str, Any] = {"name": name}
        if arguments:
            params["arguments"] = _decode_object(arguments)
        if meta:
            params["_meta"] = _decode_object(meta)
        members = len(_Call.__struct_fields__) + _count_members(params, max_depth - 1)
    except UNREADABLE:
        return None
    if not _has_members(data, members):
        return None
    rest = {"_meta": bytes(meta)} if meta else {}
    return PlainCall(call.id, name, bytes(arguments) or b"{}", params, rest)


def _count_members(container: Any, levels: int) -> int:
    """Count the members in all objects of a value; raises `RecursionError` if it has more than *levels* levels."""
    if not levels:
        raise RecursionError
    members, values = (len(container), container.values()) if type(container) is dict else (0, container)
    for item in values:
        kind = type(item)
        if kind is dict or kind is list:
            members += _count_members(item, levels - 1)
    return members


def _has_members(data: bytes, members: int) -> bool:
    """Return whether a JSON text certainly has no more members than this, so that no object repeats one.

    Each member has a colon after a quote or white space. Text inside a string may look the same, so the number found
    may be too high, and the strict parser then decides; it is never too low.
    """
    return _has_colons(data, members) or sum(map(data.count, _SEPARATORS)) == members


def _has_colons(data: bytes, number: int) -> bool:
    """Return whether *data* has exactly this many colons. In a long text `find` is many times faster than `count`."""
    if len(data) < LONG:
        return data.count(b":") == number
    at = -1
    for _ in range(number):
        if (at := data.find(b":", at + 1)) < 0:
            return False
    return data.find(b":", at + 1) < 0
