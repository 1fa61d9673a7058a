import json

import pytest

from approvals.web.nested_json import MAX_DOCUMENTS, unpack_json
from rows import each_row


def packed(**values):
    return json.dumps(values).encode()


def test_json_inside_a_string_is_unpacked_with_its_path():
    arguments = packed(user="ana", policy='{"Effect": "Allow", "n": 1.0}', list=[{"deep": "[1]"}], number=3)
    assert unpack_json(arguments) == [
        ("policy", '{\n  "Effect": "Allow",\n  "n": 1.0\n}'),
        ("list[0].deep", "[\n  1\n]"),
    ]


@each_row(
    "text",
    [
        "plain",
        "17",
        '"x"',
        "{not json",
        "[",
        "",
        "[" * 100_000,
        "[" * 600 + "]" * 600,
        '"\ud800"',
        '{"a": "\\ud800',
    ],
)
def test_other_strings_are_not_unpacked(text):
    assert unpack_json(packed(a=text)) == []


@pytest.mark.parametrize("text", ['{"Effect": "Deny", "Effect": "Allow"}', '[{"a": {"b": 1, "b": 2}}]'])
def test_json_with_repeated_members_is_not_unpacked(text):
    assert unpack_json(packed(a=text)) == []


def test_secrets_and_hidden_characters_in_unpacked_json_are_hidden_and_escaped():
    ((place, text),) = unpack_json(
        packed(**{"a\u202e": json.dumps({"password": "hunter2", "b": "x\u202ey"})})
    )
    assert place == "a\\u{202E}"
    assert "hunter2" not in text
    assert "x\\u{202E}y" in text


def test_the_number_of_unpacked_documents_is_limited():
    assert len(unpack_json(packed(**{f"a{number}": "[]" for number in range(50)}))) == MAX_DOCUMENTS
