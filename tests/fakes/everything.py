"""An MCP server on the official SDK with every feature that the conformance suite tests.

`python everything.py [--port N]` serves Streamable HTTP on this machine (the port is the first line on stdout) in all revisions
that the SDK speaks; `--stdio` serves stdin and stdout.
"""

import argparse
import asyncio
import json
import socket
import warnings
from base64 import b64encode
from itertools import count

import uvicorn
from mcp.server.caching import CacheHint
from mcp.server.lowlevel.server import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http import EventMessage, EventStore
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import PromptsListChanged, ToolsListChanged
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolResult,
    CompleteResult,
    EmptyResult,
    GetPromptResult,
    InputRequiredResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    ReadResourceResult,
    SamplingMessage,
    TextContent,
)

NAME = "everything"
PAUSE = 0.05
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
WAV = b64encode(
    b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\0\0\0\0"
).decode()
bus = InMemorySubscriptionBus()


# Tools that return content


def said(*content, is_error=False):
    items = [{"type": "text", "text": item} if isinstance(item, str) else item for item in content]
    return CallToolResult.model_validate({"content": items, "isError": is_error})


def resource(uri, mime, text):
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime, "text": text}}


IMAGE = {"type": "image", "data": PNG, "mimeType": "image/png"}
PLAIN = {
    "test_simple_text": said("This is a simple text response for testing."),
    "test_image_content": said(IMAGE),
    "test_audio_content": said({"type": "audio", "data": WAV, "mimeType": "audio/wav"}),
    "test_embedded_resource": said(
        resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    ),
    "test_multiple_content_types": said(
        "Multiple content types test:",
        IMAGE,
        resource("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    ),
    "test_error_handling": said("This tool intentionally returns an error for testing", is_error=True),
    "json_schema_2020_12_tool": said("ok"),
    "test_header_mirror": said("ok"),
    # Tools for the scenarios of the tasks extension; the SDK has no tasks, so they answer at once
    "slow_compute": said("computed"),
    "failing_job": said("This job fails.", is_error=True),
    "confirm_delete": said("deleted"),
    "multi_input": said("done"),
    "test_tool_with_task": said("done"),
}


# Tools that send messages while they run


async def log_thrice(ctx, params):
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.session.send_log_message("info", line, related_request_id=ctx.request_id)
        await asyncio.sleep(PAUSE)
    return said("logged")


async def greet(ctx, params):
    return said(f"Hello, {params.arguments['name']}!")


async def fail(ctx, params):
    raise MCPError(INTERNAL_ERROR, "This job breaks off.")


async def report_progress(ctx, params):
    for progress in (0, 50, 100):
        await ctx.session.report_progress(progress, 100)
        await asyncio.sleep(PAUSE)
    return said("done")


async def sample(ctx, params):
    if ctx.session.client_capabilities is None or ctx.session.client_capabilities.sampling is None:
        return said("The client cannot sample.", is_error=True)
    message = SamplingMessage(role="user", content=TextContent(text=params.arguments["prompt"]))
    answer = await ctx.session.create_message([message], max_tokens=100, related_request_id=ctx.request_id)
    return said(f"LLM response: {answer.content.text}")


def elicit(message, schema, lead):
    async def ask(ctx, params):
        text = message or params.arguments["message"]
        answer = await ctx.session.elicit(text, schema, related_request_id=ctx.request_id)
        content = json.dumps(answer.content)
        return said(f"{lead}: action={answer.action}, content={content}")

    return ask


def of(properties, *required):
    return {"type": "object", "properties": properties, "required": list(required)}


def titled(*pairs):
    return [{"const": const, "title": title} for const, title in pairs]


STRING = {"type": "string"}
OPTIONS = ["option1", "option2", "option3"]
DEFAULTS = of({
    "name": STRING | {"default": "John Doe"},
    "age": {"type": "integer", "default": 30},
    "score": {"type": "number", "default": 95.5},
    "status": STRING | {"enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "default": True},
})  # fmt: skip
VALUES = titled(("value1", "First Option"), ("value2", "Second Option"), ("value3", "Third Option"))
ENUMS = of({
    "untitledSingle": STRING | {"enum": OPTIONS},
    "titledSingle": STRING | {"oneOf": VALUES},
    "legacyEnum": STRING | {"enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"]},
    "untitledMulti": {"type": "array", "items": STRING | {"enum": OPTIONS}},
    "titledMulti": {"type": "array", "items": {"anyOf": titled(("value1", "First Choice"), ("value2", "Second Choice"), ("value3", "Third Choice"))}},
})  # fmt: skip


async def hang_up_first(ctx, params):
    """Close the stream of this call; its client resumes it with GET."""
    await asyncio.sleep(PAUSE)
    if ctx.close_sse_stream is not None:
        await ctx.close_sse_stream()
    await asyncio.sleep(2 * PAUSE)
    return said("Reconnected.")


async def need_sampling(ctx, params):
    if ctx.session.client_capabilities is None or ctx.session.client_capabilities.sampling is None:
        raise MCPError(
            MISSING_REQUIRED_CLIENT_CAPABILITY,
            "This tool needs sampling.",
            {"requiredCapabilities": {"sampling": {}}},
        )
    return said("The client can sample.")


def publish(event):
    async def change(ctx, params):
        await bus.publish(event)
        return said("changed")

    return change


# Tools that need input first, in the revision of 2026-07-28.


def form(message, name, kind="string"):
    schema = of({name: {"type": kind}}, name)
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


def question(text, tokens):
    messages = [{"role": "user", "content": {"type": "text", "text": text}}]
    return {"method": "sampling/createMessage", "params": {"messages": messages, "maxTokens": tokens}}


ROOTS = {"method": "roots/list", "params": {}}
NEEDS = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}


def asked(requests, state=None):
    return InputRequiredResult.model_validate({"inputRequests": requests, "requestState": state})


def answers(params):
    given = {
        key: value.model_dump(mode="json", by_alias=True, exclude_none=True)
        for key, value in (params.input_responses or {}).items()
    }
    return {key: value for key, value in given.items() if value.get("action", "accept") == "accept"}


def ask(finish, state=None, **requests):
    """Return a tool that sends all *requests* at once and returns *finish* of the answers."""

    async def tool(ctx, params):
        given = answers(params)
        if requests.keys() <= given.keys() and (state is None or params.request_state == state):
            return said(finish(given))
        return asked(requests, state)

    return tool


async def ask_twice(ctx, params):
    given, state = answers(params), params.request_state or ""
    if state == "1" and "step1" in given:
        return asked({"step2": form("Step 2: What is your favorite color?", "color")}, "2")
    if state == "2" and "step2" in given:
        return said("All steps are done.")
    return asked({"step1": form("Step 1: What is your name?", "name")}, "1")


async def ask_what_is_allowed(ctx, params):
    able = ctx.session.client_capabilities.model_dump(by_alias=True, exclude_none=True)
    requests = {
        "form": form("What is your name?", "name"),
        "sample": question("Say hello.", 50),
        "roots": ROOTS,
    }
    return asked(
        {key: one for key, one in requests.items() if NEEDS[one["method"]] in able} or None, "allowed"
    )


name_form = form("What is your name?", "name")
DOING = {
    "greet": greet,
    "protocol_error_job": fail,
    "test_tool_with_logging": log_thrice,
    "test_logging_tool": log_thrice,
    "test_tool_with_progress": report_progress,
    "test_sampling": sample,
    "test_elicitation": elicit(
        None, of({"username": STRING | {"description": "User's response"}, "email": STRING | {"description": "User's email address"}}, "username", "email"), "User response"
    ),
    "test_elicitation_sep1034_defaults": elicit("Review the defaults.", DEFAULTS, "Elicitation completed"),
    "test_elicitation_sep1330_enums": elicit("Choose.", ENUMS, "Elicitation completed"),
    "test_reconnection": hang_up_first,
    "test_missing_capability": need_sampling,
    "test_streaming_elicitation": ask(lambda _: "Thank you.", user_name=name_form),
    "test_trigger_tool_change": publish(ToolsListChanged()),
    "test_trigger_prompt_change": publish(PromptsListChanged()),
    "test_input_required_result_elicitation": ask(
        lambda given: f"Hello, {given['user_name']['content']['name']}!", user_name=name_form
    ),
    "test_input_required_result_sampling": ask(
        lambda given: given["capital_question"]["content"]["text"],
        capital_question=question("What is the capital of France?", 100),
    ),
    "test_input_required_result_list_roots": ask(
        lambda given: " ".join(root["uri"] for root in given["client_roots"]["roots"]), client_roots=ROOTS
    ),
    "test_input_required_result_request_state": ask(
        lambda _: "state-ok", "asked", confirm=form("Please confirm", "ok", "boolean")
    ),
    "test_input_required_result_multiple_inputs": ask(
        lambda _: "All three came.", "asked",
        user_name=name_form, greeting=question("Generate a greeting", 50), client_roots=ROOTS,
    ),
    "test_input_required_result_multi_round": ask_twice,
    "test_input_required_result_tampered_state": ask(
        lambda _: "state-ok", "asked", confirm=form("Please confirm", "ok", "boolean")
    ),
    "test_input_required_result_capabilities": ask_what_is_allowed,
}  # fmt: skip

SCHEMAS = {
    "greet": of({"name": STRING}, "name"),
    "test_sampling": of({"prompt": STRING}, "prompt"),
    "test_elicitation": of({"message": STRING}, "message"),
    "test_header_mirror": of({"region": STRING | {"x-mcp-header": "Region"}}),
    "json_schema_2020_12_tool": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": STRING, "city": STRING},
            }
        },
        "properties": {
            "name": STRING,
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": STRING | {"enum": ["phone", "email"]},
            "phone": STRING,
            "email": STRING,
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    },
}
TOOLS = ListToolsResult.model_validate({
    "tools": [
        {"name": name, "description": f"Does what {name} says.", "inputSchema": SCHEMAS.get(name, of({}))}
        for name in [*PLAIN, *DOING]
    ]
})  # fmt: skip


async def list_tools(ctx, params):
    return TOOLS


async def call_tool(ctx, params):
    if params.name in PLAIN:
        return PLAIN[params.name]
    if params.name in DOING:
        return await DOING[params.name](ctx, params)
    raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.name}")


# Resources and prompts.

RESOURCES = {
    "test://static-text": {"mimeType": "text/plain", "text": "This is the content of the static text resource."},
    "test://static-binary": {"mimeType": "image/png", "blob": PNG},
    "test://watched-resource": {"mimeType": "text/plain", "text": "Watched."},
}  # fmt: skip


async def list_resources(ctx, params):
    listed = [
        {"uri": uri, "name": uri[7:], "description": f"Holds {uri[7:]}.", "mimeType": held["mimeType"]}
        for uri, held in RESOURCES.items()
    ]
    return ListResourcesResult.model_validate({"resources": listed})


async def list_templates(ctx, params):
    template = {
        "uriTemplate": "test://template/{id}/data",
        "name": "template",
        "mimeType": "application/json",
    }
    return ListResourceTemplatesResult.model_validate({"resourceTemplates": [template]})


async def read_resource(ctx, params):
    uri = str(params.uri)
    held = RESOURCES.get(uri)
    if uri.startswith("test://template/") and uri.endswith("/data"):
        number = uri.removeprefix("test://template/").removesuffix("/data")
        text = json.dumps({"id": number, "templateTest": True, "data": f"Data for ID: {number}"})
        held = {"mimeType": "application/json", "text": text}
    if held is None:
        raise MCPError(INVALID_PARAMS, "Resource not found", {"uri": uri})
    return ReadResourceResult.model_validate({"contents": [{"uri": uri, **held}]})


async def nothing(ctx, params):
    return EmptyResult()


PROMPTS = {
    "test_simple_prompt": (),
    "test_prompt_with_arguments": ("arg1", "arg2"),
    "test_prompt_with_embedded_resource": ("resourceUri",),
    "test_prompt_with_image": (),
    "test_input_required_result_prompt": (),
}


async def list_prompts(ctx, params):
    listed = [
        {
            "name": name,
            "description": f"Does what {name} says.",
            "arguments": [{"name": one, "required": True} for one in wanted],
        }
        for name, wanted in PROMPTS.items()
    ]
    return ListPromptsResult.model_validate({"prompts": listed})


def messages(*content):
    items = [{"type": "text", "text": item} if isinstance(item, str) else item for item in content]
    return GetPromptResult.model_validate({"messages": [{"role": "user", "content": item} for item in items]})


async def get_prompt(ctx, params):
    given = params.arguments or {}
    match params.name:
        case "test_simple_prompt":
            return messages("This is a simple prompt for testing.")
        case "test_prompt_with_arguments":
            return messages(f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'")
        case "test_prompt_with_embedded_resource":
            embedded = resource(given["resourceUri"], "text/plain", "Embedded resource content for testing.")
            return messages(embedded, "Please process the embedded resource above.")
        case "test_prompt_with_image":
            return messages(IMAGE, "Please analyze the image above.")
        case "test_input_required_result_prompt":
            if "user_context" in answers(params):
                return messages(f"Context: {answers(params)['user_context']['content']['context']}")
            return asked({"user_context": form("What context should the prompt use?", "context")})
    raise MCPError(INVALID_PARAMS, f"Unknown prompt: {params.name}")


async def complete(ctx, params):
    words = [word for word in ("paris", "park", "party") if word.startswith(params.argument.value)]
    return CompleteResult.model_validate(
        {"completion": {"values": words, "total": len(words), "hasMore": False}}
    )


class InMemoryEventStore(EventStore):
    """Keeps every event of every stream, so that a disconnected client can resume."""

    def __init__(self):
        self._numbers = count(1)
        self._events = {}

    async def store_event(self, stream_id, message):
        number = str(next(self._numbers))
        self._events[number] = (stream_id, message)
        return number

    async def replay_events_after(self, last_event_id, send_callback):
        if last_event_id not in self._events:
            return None
        stream = self._events[last_event_id][0]
        for number, (whose, message) in list(self._events.items()):
            if whose == stream and int(number) > int(last_event_id) and message is not None:
                await send_callback(EventMessage(message, number))
        return stream


def server():
    hint = CacheHint(ttl_ms=60_000, scope="public")
    cached = (
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "server/discover",
    )
    made = Server(
        NAME, version="1", on_list_tools=list_tools, on_call_tool=call_tool, on_list_resources=list_resources,
        on_list_resource_templates=list_templates, on_read_resource=read_resource, on_subscribe_resource=nothing,
        on_unsubscribe_resource=nothing, on_list_prompts=list_prompts, on_get_prompt=get_prompt, on_completion=complete,
        on_set_logging_level=nothing, on_subscriptions_listen=ListenHandler(bus), cache_hints=dict.fromkeys(cached, hint),
        get_tool_input_schema=lambda name: SCHEMAS.get(name, of({})),
    )  # fmt: skip
    made.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=NAME))
    return made


async def over_stdio():
    made = server()
    async with stdio_server() as (reader, writer):
        await made.run(reader, writer, made.create_initialization_options())


def over_http(port):
    listening = socket.create_server(("127.0.0.1", port))
    print(listening.getsockname()[1], flush=True)
    app = server().streamable_http_app(event_store=InMemoryEventStore(), retry_interval=500)
    # With httptools installed, uvicorn would use it, and keep the spaces around header values.
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, http="h11")
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--stdio", action="store_true")
    given = parser.parse_args()
    if given.stdio:
        asyncio.run(over_stdio())
    else:
        over_http(given.port)
