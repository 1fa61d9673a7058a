from gateway.explain.parameters import MAX_LINE, MAX_SHOWN, build_parameter_list, propose_schema
from rows import each_row

MIXED = {
    "inputSchema": {
        "properties": {
            "user": {"type": "string", "description": "Whose\npolicy \u202eit is."},
            "mode": {"enum": ["fast", 2, None, {}]},
            "size": {"type": ["integer", "null"]},
            "either": {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "number"}, 7]},
            "odd": True,
            "made up": {"type": "wish", "description": 4},
        },
        "required": ["user", "absent", 7, ["x"]],
    }
}


def test_each_parameter_has_its_type_and_one_safe_line():
    found = build_parameter_list(MIXED)
    assert [(one.name, one.type, one.required, one.line) for one in found.shown] == [
        ("user", "string", True, "Whose policy \\u{202E}it is."),
        ("mode", "any", False, "One of fast, 2."),
        ("size", "integer or null", False, ""),
        ("either", "string or number", False, ""),
        ("odd", "any", False, ""),
        ("made up", "any", False, ""),
    ]
    assert found.summary == "6 parameters, 1 required"


@each_row("schema", [None, 7, [], {}, {"properties": 7}, {"properties": {}, "required": "all"}])
def test_an_invalid_schema_has_no_parameters(schema):
    assert build_parameter_list({"inputSchema": schema}).summary == "No parameters"


def test_one_parameter_is_counted_in_the_singular():
    assert (
        build_parameter_list({"inputSchema": {"properties": {"a": {}}}}).summary
        == "1 parameter, none required"
    )


def test_long_lists_and_lines_are_cut():
    many = {f"p{number}": {"description": "x" * 9999} for number in range(MAX_SHOWN + 1)}
    found = build_parameter_list({"inputSchema": {"properties": many}})
    assert (len(found.shown), found.total) == (MAX_SHOWN, MAX_SHOWN + 1)
    assert max(len(one.line) for one in found.shown) == MAX_LINE


def test_no_schema_is_proposed_that_covers_only_some_parameters():
    """A schema that names only some parameters would deny the calls that use the others."""
    many = {f"p{number}": {} for number in range(MAX_SHOWN + 1)}
    for properties in (many, {"a b": {}}, {"${HOME}": {}}):
        assert propose_schema(build_parameter_list({"inputSchema": {"properties": properties}})) == ()
