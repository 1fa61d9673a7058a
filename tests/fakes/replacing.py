"""Changes a value in a test: a copy with other fields, of a dataclass or of a msgspec struct."""

import dataclasses
from typing import Any, TypeVar

import msgspec

Value = TypeVar("Value")


def replace(value: Value, **fields: Any) -> Value:
    change = msgspec.structs.replace if isinstance(value, msgspec.Struct) else dataclasses.replace
    return change(value, **fields)
