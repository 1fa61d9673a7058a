from gateway.explain.parameters import LINE, SHOWN, checks, declared
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


def test_each_parameter_is_told_with_its_type_and_one_safe_line():
    found = declared(MIXED)
    assert [(one.name, one.type, one.required, one.line) for one in found.shown] == [
        ("user", "string", True, "Whose policy \\u{202E}it is."),
        ("mode", "any", False, "One of fast, 2."),
        ("size", "integer or null", False, ""),
        ("either", "string or number", False, ""),
        ("odd", "any", False, ""),
        ("made up", "any", False, ""),
    ]
    assert found.counted == "6 parameters, 1 required"


@each_row("schema", [None, 7, [], {}, {"properties": 7}, {"properties": {}, "required": "all"}])
def test_a_schema_of_any_shape_is_read(schema):
    assert declared({"inputSchema": schema}).counted == "No parameters"


def test_one_parameter_is_one():
    assert declared({"inputSchema": {"properties": {"a": {}}}}).counted == "1 parameter, none required"


def test_long_lists_and_lines_are_cut():
    many = {f"p{number}": {"description": "x" * 9999} for number in range(SHOWN + 1)}
    found = declared({"inputSchema": {"properties": many}})
    assert (len(found.shown), found.total) == (SHOWN, SHOWN + 1)
    assert max(len(one.line) for one in found.shown) == LINE


def test_half_a_check_is_none():
    """A schema that names only some parameters would deny the calls that use the others."""
    many = {f"p{number}": {} for number in range(SHOWN + 1)}
    for properties in (many, {"a b": {}}, {"${HOME}": {}}):
        assert checks(declared({"inputSchema": {"properties": properties}})) == ()
