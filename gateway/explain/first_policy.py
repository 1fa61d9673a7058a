"""Generates a first policy: a rule for each listed tool, by category, with the advice (PURE)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from approvals import safetext
from gateway.explain import advice
from gateway.explain.advice import ADVICE
from gateway.explain.parameters import build_parameter_list
from gateway.tools.catalogue import Tool
from gateway.tools.classify.risk import MEANINGS, Category
from gateway.wire.frames import TOOL_NAME

_HEAD = """\
# A policy for the tools that the servers list now. Replace `policy:` in the config with it, review and adjust it,
# then run: okayed check
policy:
  # For calls that no rule below matches.
  default: require_approval

  # By category, for tools that are added or reclassified later.
  matrix:"""
_TOOLS = """
  # By name; these override the matrix. If several rules apply to a tool, the strictest wins."""
#: The heading of tools that could not be classified.
UNKNOWN = "? Not understood. Classify these under servers.<server>.tools, or write rules for them here."


def generate_policy(tools: Sequence[tuple[str, Tool]], failures: Mapping[str, str]) -> str:
    """Generate the policy as YAML; *tools* are (server, tool) pairs, *failures* the error of each failed server."""
    return "\n".join(
        [
            _HEAD,
            *(f"    - {_row(category)}" for category in ADVICE),
            _TOOLS,
            *(
                f"  # {safetext.one_line(f'{server} could not be listed: {why}', 300)}"
                for server, why in failures.items()
            ),
            *_tool_lines(tools),
            "",
        ]
    )


def _row(category: Category) -> str:
    return f"{{{', '.join([f'category: [{category}]', *advice.rule_terms(ADVICE[category])])}}}"


def _tool_lines(tools: Sequence[tuple[str, Tool]]) -> Iterator[str]:
    sections = [line for category in ADVICE for line in _section(category, tools)]
    has_rules = any(line.lstrip()[:1] not in ("", "#") for line in sections)
    yield "  tools:" if has_rules else "  tools: {}"
    yield from sections


def _section(category: Category, tools: Sequence[tuple[str, Tool]]) -> Iterator[str]:
    members = [(server, tool) for server, tool in tools if tool.classification.category is category]
    if not members:
        return
    yield ""
    yield f"    # {UNKNOWN if category is Category.OTHER else MEANINGS[category]}"
    yield f"    # Advice: {ADVICE[category].text}"
    for server, tool in members:
        yield from _entry(server, tool)


def _entry(server: str, tool: Tool) -> Iterator[str]:
    classification = tool.classification
    name = safetext.one_line(safetext.ascii_name(tool.name), 200)
    why = f" {safetext.one_line(classification.evidence[0], 300)}" if classification.evidence else ""
    yield ""
    yield f"    # {name}: risk {classification.risk}, severity {classification.severity}.{why}"
    if not TOOL_NAME.fullmatch(tool.name):
        yield "    # Every call is denied, because its name is invalid."
        return
    rule = advice.build_rule(
        server, tool.name, classification.category, build_parameter_list(tool.definition)
    )
    yield from (f"    {line}" for line in rule)
