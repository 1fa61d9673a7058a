"""Why calls of a tool need somebody's eye: one sentence, made from its category and its severity alone (PURE)."""

from collections.abc import Mapping

#: What could go wrong, by category. A category that is not known is an Other.
_WRONG: Mapping[str, str] = {
    "Read": "It changes nothing, but what it reads goes to the agent",
    "Write": "It changes something, and a wrong change stays until somebody changes it back",
    "Execute": "It sets something going, and its arguments decide what happens beyond the call",
    "Destructive": "It removes or cancels what may not come back",
    "Financial": "It moves money or commits to an obligation",
    "Other": "What it does is not understood, so it counts as a tool that changes something",
}
#: How far it reaches, by severity. A severity that is not known is critical.
_REACH: Mapping[str, str] = {
    "low": "one wrong call does little harm",
    "medium": "one wrong call does harm that takes some work to mend",
    "high": "one wrong call can do great harm",
    "critical": "one wrong call can do great harm that may not be mended",
}


def describe_impact(category: str, severity: str) -> str:
    """Say what could go wrong with a tool like this, and how far it reaches."""
    return f"{_WRONG.get(category, _WRONG['Other'])}; {_REACH.get(severity, _REACH['critical'])}."
