from approvals.impact import describe_impact
from rows import each_row

CATEGORIES = ("Read", "Write", "Execute", "Destructive", "Financial", "Other")
SEVERITIES = ("low", "medium", "high", "critical")


def test_every_category_and_severity_has_its_own_sentences():
    said = {describe_impact(category, severity) for category in CATEGORIES for severity in SEVERITIES}
    assert len(said) == len(CATEGORIES) * len(SEVERITIES)
    assert all(sentence.count(".") == 2 and len(sentence) < 200 for sentence in said)


@each_row("severity", SEVERITIES)
def test_an_unknown_category_reads_like_other_and_an_unknown_severity_like_critical(severity):
    assert describe_impact("Harmless", severity) == describe_impact("Other", severity)
    assert describe_impact("Write", "none") == describe_impact("Write", "critical")
