"""The tables of protocol revisions, with header rules compared with the SDK's."""

from hypothesis import given
from hypothesis import strategies as st
from mcp.shared import inbound
from mcp_types import version

from gateway.wire import frames, protocol
from gateway.wire.protocol import Era, McpHeaders
from rows import each_row

META = '"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}'
MODERN = frames.decode(
    f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","arguments":{{}},{META}}}}}'.encode()
)
LEGACY = frames.decode(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}')
VERSION, METHOD, NAME = (
    ("mcp-protocol-version", "2026-07-28"),
    ("mcp-method", "tools/call"),
    ("mcp-name", "t"),
)


def test_the_revisions_equal_the_sdks():
    assert tuple(version.HANDSHAKE_PROTOCOL_VERSIONS) == protocol.HANDSHAKE
    assert tuple(version.MODERN_PROTOCOL_VERSIONS) == protocol.MODERN


def test_the_statuses_equal_the_sdks():
    known = {int(code): status for code, status in inbound.ERROR_CODE_HTTP_STATUS.items()}
    assert {code: protocol.HTTP_STATUS.get(code, 200) for code in known} == known


def test_the_era_is_read_from_the_body_or_the_header():
    assert protocol.era({}, LEGACY) is Era.HANDSHAKE
    assert protocol.era({}, MODERN) is Era.MODERN
    assert protocol.era({"mcp-protocol-version": "2026-07-28"}, LEGACY) is Era.MODERN
    assert protocol.era({"mcp-protocol-version": "2025-11-25"}, None) is Era.HANDSHAKE


@each_row(
    ("pairs", "code"),
    [
        ([VERSION, METHOD, NAME], None),
        ([VERSION, METHOD, ("mcp-name", " t ")], None),
        ([VERSION, METHOD, ("mcp-name", "=?base64?dA==?=")], None),
        ([VERSION, METHOD, ("mcp-name", "safe")], -32020),
        ([VERSION, METHOD], -32020),
        ([VERSION, NAME], -32020),
        ([METHOD, NAME], -32020),
        ([VERSION, METHOD, NAME, ("mcp-name", "t")], -32020),
        ([VERSION, METHOD, NAME, NAME], -32020),
        ([VERSION, ("mcp-method", "Tools/call"), NAME], -32020),
        ([VERSION, METHOD, ("mcp-name", "=?base64?dA=?=")], -32020),
        ([VERSION, METHOD, ("mcp-name", "=?BASE64?dA==?=")], -32020),
        ([VERSION, METHOD, ("mcp-name", "=?base64?dB==?=")], -32020),
        ([VERSION, METHOD, ("mcp-name", "=?base64?/w==?=")], -32020),
        ([("mcp-protocol-version", "2025-11-25"), METHOD, NAME], -32020),
        ([("mcp-protocol-version", "2031-01-01"), METHOD, NAME], -32022),
    ],
)
def test_headers_must_match_the_body(pairs, code):
    wrong = protocol.check_headers(McpHeaders.read(pairs), MODERN)
    assert (wrong.code if wrong else None) == code
    if code == -32022:
        assert wrong.data == {"supported": list(protocol.SUPPORTED), "requested": "2031-01-01"}


def test_handshake_revisions_need_no_routing_headers():
    assert protocol.check_headers(McpHeaders.read([]), LEGACY) is None
    assert (
        protocol.check_headers(
            McpHeaders.read([("mcp-protocol-version", "2025-06-18"), ("mcp-name", "x")]), LEGACY
        )
        is None
    )
    assert (
        protocol.check_headers(McpHeaders.read([("mcp-protocol-version", "1999-01-01")]), LEGACY).code
        == -32022
    )


def test_headers_for_the_server_are_built_from_the_body():
    assert protocol.routing_headers(MODERN) == {
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "t",
    }
    assert protocol.routing_headers(LEGACY) == {}
    given = {
        "mcp-name": "lie",
        "authorization": "Bearer x",
        "cookie": "c",
        "x-forwarded-for": "1",
        "mcp-param-region": "eu",
        "last-event-id": "3",
    }
    forwarded = protocol.forwarded_headers(given)
    assert forwarded == {"last-event-id": "3"}
    assert protocol.request_headers(Era.MODERN, forwarded, MODERN) == {
        "mcp-name": "t", "mcp-method": "tools/call", "mcp-protocol-version": "2026-07-28", "last-event-id": "3",
    }  # fmt: skip
    assert protocol.request_headers(Era.HANDSHAKE, forwarded, LEGACY) == {"last-event-id": "3"}


def test_headers_are_built_for_a_revision_named_only_in_the_header():
    request = frames.Request(id=1, method="prompts/get", params={"name": "p"}, raw=b"")
    assert protocol.request_headers(Era.MODERN, {"mcp-protocol-version": "2031-01-01"}, request) == {
        "mcp-protocol-version": "2031-01-01",
        "mcp-method": "prompts/get",
        "mcp-name": "p",
    }


def test_only_safe_response_headers_reach_the_client():
    answer = {
        "Content-Type": "a",
        "Mcp-Session-Id": "s",
        "Set-Cookie": "c",
        "WWW-Authenticate": "w",
        "Server": "x",
    }
    assert protocol.response_headers(answer) == {"Content-Type": "a", "Mcp-Session-Id": "s"}


@given(st.text(min_size=1, max_size=30))
def test_header_values_are_encoded_as_the_sdk_encodes_them(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    ours = protocol.encode_header(text)
    assert protocol.decode_header(ours) == text
    assert inbound.decode_header_value(ours) == text
    assert protocol.decode_header(inbound.encode_header_value(text)) == text


@each_row(
    ("text", "headers", "passes"),
    [
        ('{"jsonrpc":"2.0","id":1,"method":"ping"}', {}, True),
        ('{"jsonrpc":"2.0","id":1,"method":"ping"}', {"mcp-protocol-version": "2026-07-28"}, False),
        ('{"jsonrpc":"2.0","id":1,"method":"server/discover"}', {"mcp-protocol-version": "2026-07-28"}, True),
        ('{"jsonrpc":"2.0","id":1,"method":"tools/call "}', {}, False),
        ('{"jsonrpc":"2.0","method":"notifications/cancelled"}', {}, True),
        ('{"jsonrpc":"2.0","method":"tasks/cancel"}', {}, False),
        ('{"jsonrpc":"2.0","id":1,"result":{}}', {}, True),
        ('{"jsonrpc":"2.0","id":1,"result":{}}', {"mcp-protocol-version": "2026-07-28"}, False),
    ],
)
def test_allowed_methods_are_listed_per_era(text, headers, passes):
    assert protocol.is_allowed(frames.decode(text.encode()), headers) is passes


def test_the_end_of_the_handshake_is_recognized():
    assert protocol.finishes_handshake(
        frames.decode(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')
    )
    assert not protocol.finishes_handshake(LEGACY)


@each_row(
    ("members", "cancelled"),
    [
        ('"method":"notifications/cancelled","params":{"requestId":7,"reason":"tired"}', 7),
        ('"method":"notifications/cancelled","params":{"requestId":"7"}', "7"),
        ('"method":"notifications/cancelled","params":{"requestId":true}', None),
        ('"method":"notifications/cancelled","params":{"requestId":[7]}', None),
        ('"method":"notifications/cancelled"', None),
        ('"method":"notifications/progress","params":{"requestId":7}', None),
        ('"id":1,"method":"tools/list","params":{"requestId":7}', None),
    ],
)
def test_a_cancellation_names_its_request(members, cancelled):
    frame = frames.decode(f'{{"jsonrpc":"2.0",{members}}}'.encode())
    assert protocol.cancelled_id(frame) == cancelled


def test_the_gateways_discover_request_is_valid_in_the_modern_revision():
    frame = frames.decode(protocol.DISCOVER)
    sent = [(name.lower(), value) for name, value in protocol.modern_headers("server/discover").items()]
    assert protocol.check_headers(McpHeaders.read(sent), frame) is None
