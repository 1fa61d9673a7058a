"""Defects that put a tool's definition in quarantine."""

import json

from gateway.tools import defects
from rows import each_row

GOOD = {"name": "create_note", "description": "Create a note.", "inputSchema": {"type": "object"}}


def header(name, **schema):
    return {"type": "string", "x-mcp-header": name, **schema}


def with_schema(**schema):
    return GOOD | {"inputSchema": {"type": "object", **schema}}


@each_row(
    "definition",
    [
        GOOD,
        {"name": "a"},
        with_schema(**{"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"a": {"items": [{}]}}}),
        with_schema(**{"$schema": "https://example.com/our-own"}),
        with_schema(properties={"a": {"$ref": "#/$defs/a"}}, **{"$defs": {"a": {"type": "string"}}}),
        with_schema(properties={"a": {"pattern": "^(?!x)"}}),
        with_schema(properties={"a": header("Region"), "b": {"properties": {"c": header("Zone", type="integer")}}}),
    ],
)  # fmt: skip
def test_a_valid_definition_has_no_defect(definition):
    assert defects.find_defect(definition, json.dumps(definition).encode()) == ""


@each_row(
    ("definition", "defect"),
    [
        ({"name": "delete_us\u0435r"}, "its name is invalid"),
        ({"name": "a b"}, "its name is invalid"),
        ({"name": 5 * "x" * 30}, "its name is invalid"),
        (GOOD | {"description": "x" * 300_000}, "longer than 256 KiB"),
        (GOOD | {"inputSchema": []}, "its inputSchema is not an object"),
        (GOOD | {"outputSchema": "x"}, "its outputSchema is not an object"),
        (with_schema(type="strin"), "its inputSchema is invalid"),
        (with_schema(**{"$ref": "http://169.254.169.254/latest"}), "its inputSchema is invalid"),
        (with_schema(properties={"a": {"$ref": "file:///etc/passwd"}}), "its inputSchema is invalid"),
        (with_schema(properties={"a": header("Re\r\ngion")}), "the header of a is not a valid header name"),
        (with_schema(properties={"a": header("")}), "the header of a is not a valid header name"),
        (with_schema(properties={"a": header("A", type="number")}), "the header of a mirrors a type other than"),
        (with_schema(properties={"a": header("A"), "b": header("a")}), "the header a is declared twice"),
        (with_schema(properties={"a": header("x"), "b": header("X")}), "the header X is declared twice"),
        (with_schema(properties={"a": {"properties": {"b": header("")}}}), "the header of b is not a valid header name"),
    ],
)  # fmt: skip
def test_the_defect_of_a_misleading_definition_is_reported(definition, defect):
    assert defect in defects.find_defect(definition, json.dumps(definition).encode())


def test_duplicate_names_in_a_list_are_found_regardless_of_case():
    listed = [{"name": "a"}, {"name": "b"}, {"name": "B"}, {"name": "a"}, {"name": "c"}, {}]
    assert defects.find_duplicates(listed) == {"a", "b", "B"}
