"""The sizes of all containers that an object of this project reaches."""

from collections import deque
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

CONTAINERS = (dict, list, tuple, set, frozenset, deque, WeakSet)
PACKAGES = ("approvals", "gateway")


def container_sizes(root: Any) -> dict[str, int]:
    """Return the size of each container by its path from *root*."""
    found: dict[str, int] = {}
    seen: dict[int, Any] = {}
    waiting = [("", root)]
    while waiting:
        path, one = waiting.pop()
        if id(one) in seen:
            continue
        seen[id(one)] = one
        if isinstance(one, CONTAINERS):
            found[path] = len(one)
        waiting += [(f"{path}{name}", part) for name, part in _parts(one)]
    return found


def _parts(one: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(one, dict):
        yield from ((f"[{str(key)[:40]}]", value) for key, value in one.items())
    elif isinstance(one, CONTAINERS):
        yield from (("[]", value) for value in one)
    elif callable(one):
        yield "()", getattr(one, "__self__", None) or getattr(one, "func", None)
        yield "()", [cell.cell_contents for cell in getattr(one, "__closure__", None) or ()]
    if type(one).__module__.startswith(PACKAGES):
        yield from ((f".{name}", getattr(one, name)) for name in _fields(one))


def _fields(one: Any) -> set[str]:
    slots = {name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ())}
    return {*getattr(one, "__dict__", {}), *(name for name in slots if hasattr(one, name))}
