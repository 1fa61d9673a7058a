"""The JSON Schema of the config, and the check of a config's shape (PURE)."""

from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.config.options import Config
from gateway.config.problems import Problem


def build_schema() -> dict[str, Any]:
    """Return the JSON Schema of the config, for editors and for validation."""
    schema = msgspec.json.schema(Config)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Okayed config", **schema}


def find_shape_problems(value: Any) -> Iterator[Problem]:
    """Report everything in a config that its schema does not allow."""
    try:
        msgspec.convert(value, Config)
    except msgspec.ValidationError:
        from gateway.config.shape_problems import explain_shape

        yield from explain_shape(value)
