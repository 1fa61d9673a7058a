"""A listener acts on a signal by its kind, and reads everything again after an unknown kind."""

from approvals.signals import IGNORABLE, Signal, SignalKind, act_on
from rows import each_row


def acted_on(kind, actions):
    """Return the actions that a signal of this kind runs, by their kinds."""
    done = []
    signal = Signal(kind, "a subject")
    act_on(signal, {of: lambda given, of=of: done.append((of, given)) for of in actions})
    assert all(given == signal for _, given in done)
    return [of for of, _ in done]


def test_each_kind_runs_its_action():
    for kind in IGNORABLE:
        assert acted_on(kind, SignalKind) == [kind]


def test_an_ignorable_kind_needs_no_action():
    for kind in IGNORABLE:
        assert acted_on(kind, [SignalKind.RESYNC]) == []


@each_row("kind", ["resync", "freeze", "a kind of a newer version", ""])
def test_every_other_kind_runs_the_action_of_resync(kind):
    assert acted_on(kind, [SignalKind.CALL, SignalKind.RESYNC]) == [SignalKind.RESYNC]
