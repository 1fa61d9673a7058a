"""PURE. A policy to start from: each tool that the servers offer, under its category, with what the catalogue advises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from approvals import safetext
from gateway.explain import advice
from gateway.explain.advice import ADVICE
from gateway.explain.parameters import read_parameters
from gateway.tools.catalogue import Tool
from gateway.tools.classify.risk import MEANINGS, Category
from gateway.wire.frames import TOOL_NAME

_HEAD = """\
# A policy for the tools that the servers offer now. Put it in the place of `policy:` in the config, read it, change
# what you know better, and look over it with: okayed check
policy:
  # What becomes of a call that nothing below speaks of.
  default: require_approval

  # By category, for tools that come later or turn out to be something else.
  matrix:"""
_TOOLS = """
  # By name; these beat the matrix. Of several rules for a tool the strictest counts."""
#: The heading of what could not be classified.
UNKNOWN = "? Not understood. Say what these are under servers.<server>.tools, or here what happens to them."


def generate_policy(offers: Sequence[tuple[str, Tool]], silent: Mapping[str, str]) -> str:
    """Return the policy as YAML; *offers* are tools with their servers, *silent* why a server could not be asked."""
    return "\n".join(
        [
            _HEAD,
            *(f"    - {_row(category)}" for category in ADVICE),
            _TOOLS,
            *(
                f"  # {safetext.one_line(f'{server} could not be asked: {why}', 300)}"
                for server, why in silent.items()
            ),
            *_tools(offers),
            "",
        ]
    )


def _row(category: Category) -> str:
    return f"{{{', '.join([f'category: [{category}]', *advice.rule_terms(ADVICE[category])])}}}"


def _tools(offers: Sequence[tuple[str, Tool]]) -> Iterator[str]:
    sections = [line for category in ADVICE for line in _section(category, offers)]
    has_rules = any(line.lstrip()[:1] not in ("", "#") for line in sections)
    yield "  tools:" if has_rules else "  tools: {}"
    yield from sections


def _section(category: Category, offers: Sequence[tuple[str, Tool]]) -> Iterator[str]:
    tools = [(server, tool) for server, tool in offers if tool.classification.category is category]
    if not tools:
        return
    yield ""
    yield f"    # {UNKNOWN if category is Category.OTHER else f'{category}. {MEANINGS[category]}'}"
    yield f"    # Advice: {ADVICE[category].text}"
    for server, tool in tools:
        yield from _entry(server, tool)


def _entry(server: str, tool: Tool) -> Iterator[str]:
    found = tool.classification
    name = safetext.one_line(safetext.ascii_name(tool.name), 200)
    why = f" {safetext.one_line(found.evidence[0], 300)}" if found.evidence else ""
    yield ""
    yield f"    # {name}: risk {found.risk}, severity {found.severity}.{why}"
    if not TOOL_NAME.fullmatch(tool.name):
        yield "    # Every call of it is denied: its name is not one that a tool may have."
        return
    rule = advice.build_rule(server, tool.name, found.category, read_parameters(tool.definition))
    yield from (f"    {line}" for line in rule)
