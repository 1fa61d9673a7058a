"""Tools as servers define them, one or more of each category, and a policy to judge a call of one."""

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


def found(definition, siblings=()):
    return classify(definition, SIBLINGS.get(definition["name"], siblings))


def tool(definition):
    return Tool(name=definition["name"], definition=definition, hash="1", classification=found(definition))


def loaded(text, server=SERVER, default="require_approval"):
    """Load what can be pasted, with what a config needs besides."""
    text = text.replace("policy:\n", f"policy:\n  default: {default}\n", 1)
    text = (
        text.replace("    tools:\n", "    command: [x]\n    tools:\n", 1)
        if text.startswith("servers:")
        else text
    )
    text += "" if "policy:" in text else f"\npolicy: {{default: {default}}}"
    text += "" if "servers:" in text else f"\nservers: {{{server}: {{command: [x]}}}}"
    return config.parse_config(text + "\n", {}, str)


def judged(options, definition, server=SERVER, classification=None, **arguments):
    return compile_policy(options).evaluate(
        CallFacts(
            server=server,
            tool=definition["name"],
            agent="",
            arguments=arguments,
            classification=classification or found(definition),
        )
    )
