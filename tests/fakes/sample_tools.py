"""Sample tool definitions of every category, and functions that classify them and evaluate policies."""

from gateway.app import config
from gateway.policy.compiling import compile_policy
from gateway.policy.evaluation import CallFacts
from gateway.tools.catalogue import Tool
from gateway.tools.classify.risk import classify

SERVER = "awslabs.iam-mcp-server"
IAM = ("put_user_policy", "put_role_policy", "add_inline_policy", "list_users")
GENERATION = ("policy_generation_start", "list_policies", "get_policy")


def schema(*required, **properties):
    return {"type": "object", "properties": properties, "required": list(required)}


TEXT = {"type": "string"}
DEFINITIONS = (
    {"name": "list_users", "description": "Lists the users of the account. In pages. Needs no rights."},
    {"name": "put_user_policy"},
    {"name": "run_query", "inputSchema": schema("sql", sql=TEXT, rows={"type": "integer"}, odd=True)},
    {"name": "policy_generation_start"},
    {"name": "delete_user", "inputSchema": schema("user_name", user_name=TEXT)},
    {"name": "create_refund", "inputSchema": schema("amount", amount={"type": ["number", "null"]})},
    {"name": "zarf_widget", "inputSchema": schema(**{"a b": TEXT})},
)
SIBLINGS = {"put_user_policy": IAM, "policy_generation_start": GENERATION}


def classify_tool(definition, siblings=()):
    return classify(definition, SIBLINGS.get(definition["name"], siblings))


def tool(definition):
    return Tool(
        name=definition["name"], definition=definition, hash="1", classification=classify_tool(definition)
    )


def load_config(text, server=SERVER, default="require_approval"):
    """Load a proposed part of a config, completed to a valid config."""
    text = text.replace("policy:\n", f"policy:\n  default: {default}\n", 1)
    text = (
        text.replace("    tools:\n", "    command: [x]\n    tools:\n", 1)
        if text.startswith("servers:")
        else text
    )
    text += "" if "policy:" in text else f"\npolicy: {{default: {default}}}"
    text += "" if "servers:" in text else f"\nservers: {{{server}: {{command: [x]}}}}"
    return config.parse_config(text + "\n", {}, str)


def evaluate_call(options, definition, server=SERVER, classification=None, **arguments):
    return compile_policy(options).evaluate(
        CallFacts(
            server=server,
            tool=definition["name"],
            agent="",
            arguments=arguments,
            classification=classification or classify_tool(definition),
        )
    )
