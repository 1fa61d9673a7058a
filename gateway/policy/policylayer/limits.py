"""Translates PolicyLayer limits (PURE).

Counters per calendar minute, hour or day become sliding windows of that length, which never allow more.
"""

import re
from collections.abc import Mapping
from typing import Any

from gateway.config.options import parse_duration
from gateway.policy.limits import AMOUNT
from gateway.policy.policylayer.conditions import EXACT, TranslationError
from gateway.wire.frames import TOOL_NAME

_WINDOWS = {"second": "1s", "minute": "1m", "hour": "1h", "day": "1d"}
_RATE = re.compile(rf"(\d{{1,15}}) ?/ ?({'|'.join(_WINDOWS)})s?")


def parse_rate(rate: Any) -> tuple[int, str]:
    """Return the number and the unit of `10/minute`; raises `TranslationError`."""
    if (match := _RATE.fullmatch(str(rate))) is None:
        raise TranslationError(f"{rate!r} is not a rate such as 10/minute")
    return int(match[1]), match[2]


def counter_maximum(op: str, value: Any) -> int:
    """Return the maximum that a condition allows a counter, -1 for none; raises `TranslationError`."""
    if op not in ("lt", "lte") or not _is_number(value):
        raise TranslationError(f"a counter can only be bounded by lt or lte, not by {op} {value!r}")
    most = int(value)
    return most - 1 if op == "lt" else most


def translate_limit(name: str, most: Any, window: Any, source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `rate_limit` or `spend` for the tools named *name*; raises `TranslationError`."""
    if not _is_number(most) or most < 0:
        raise TranslationError(f"{most!r} is not a limit")
    limit: dict[str, Any] = {"max": most, "window": _to_window(window), "per": _limit_scope(source)}
    if not TOOL_NAME.fullmatch(name):
        limit["shared"] = True  # one counter for all tools, as in the original
    if source.get("on_exceed") == "require_approval":
        limit["on_exceed"] = "require_approval"
    if (of := source.get("increment_from")) is not None:
        if not AMOUNT.fullmatch(str(of)) or "${" in of:
            raise TranslationError(f"{of!r} is not an argument that can be added up")
        return {"spend": {"of": of, **limit}}
    step = source.get("increment") or 1
    if not _is_number(step) or step < 1:
        raise TranslationError(f"each call adds {step!r} to its counter")
    return {"rate_limit": {**limit, "max": int(most // step)}}


def translate_duration(duration: Any) -> str:
    """Translate a Go duration (`1h30m`); raises `TranslationError`."""
    parts = re.findall(r"(\d{1,15}(?:\.\d{1,15})?)([smh])", str(duration))
    try:
        total = round(sum(parse_duration("".join(part)) for part in parts if float(part[0])), 6)
    except ValueError as error:
        raise TranslationError(str(error).rstrip(".")) from error
    if "".join(map("".join, parts)) != str(duration) or not total:
        raise TranslationError(f"{duration!r} is not a duration such as 30m")
    return f"{total:f}".rstrip("0").rstrip(".") + "s"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= EXACT


def _to_window(window: Any) -> Any:
    try:
        parse_duration(found := _WINDOWS.get(str(window), window))
    except ValueError as error:
        raise TranslationError(f"{window!r} is not a window of time") from error
    return found


def _limit_scope(source: Mapping[str, Any]) -> str:
    """Return the scope of a limit: a grant is an agent; any other scope is everyone, the strictest."""
    if (per := source.get("per")) in ("session", "agent", "everyone"):
        return str(per)
    return "agent" if source.get("scope") == "grant" else "everyone"
