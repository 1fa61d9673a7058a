"""The impact of a tool's calls in two sentences, from its category and its severity (PURE)."""

from collections.abc import Mapping

#: Category -> effect of a call. An unknown category reads as Other.
_EFFECTS: Mapping[str, str] = {
    "Read": "Reads data and returns it to the agent.",
    "Write": "Changes data.",
    "Execute": "Runs an operation whose effect depends on the arguments.",
    "Destructive": "Deletes or cancels something, possibly for good.",
    "Financial": "Moves money or makes a financial commitment.",
    "Other": "Its effect is unknown, so it is treated as a change.",
}
#: Severity -> harm of a wrong call. An unknown severity reads as critical.
_HARM: Mapping[str, str] = {
    "low": "A mistake does little harm.",
    "medium": "A mistake can be fixed with some work.",
    "high": "A mistake can do serious harm.",
    "critical": "A mistake can do serious harm that may be irreversible.",
}


def describe_impact(category: str, severity: str) -> str:
    """Return the effect of a call of this category, and the harm that a mistake does."""
    return f"{_EFFECTS.get(category, _EFFECTS['Other'])} {_HARM.get(severity, _HARM['critical'])}"
