"""Sample held calls, approvers and a clock for tests of the approvals package."""

from itertools import count

from approvals import digest
from approvals.identity import Directory
from approvals.model import Approver, CallId, Classification, HeldCall, Terms, ToolCall

_numbers = count(1)


class Clock:
    """A clock in epoch seconds that the test sets."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def directory() -> Directory:
    return Directory(
        [
            Approver(name="alice", slack="U01ALICE", email="alice@example.com"),
            Approver(name="bob", slack="U02BOB"),
        ]
    )


def held(
    now: float, *, tool: str = "put_user_policy", agent: str = "ci-bot", owner: str | None = "maria",
    arguments: bytes = b'{"user_name": "bob"}', needed: int = 1, reason: str = "", extra_params: bytes = b"",
) -> HeldCall:  # fmt: skip
    call = ToolCall(
        agent=agent,
        owner=owner,
        session="s1",
        server="iam",
        tool=tool,
        arguments=arguments,
        extra_params=extra_params,
    )
    return HeldCall(
        id=CallId(f"hold_{next(_numbers):026d}"),
        call=call,
        terms=Terms(approvers=frozenset({"alice", "bob"}), needed=needed),
        classification=Classification(
            category="Write", risk="Medium", severity="high", evidence=("It touches who may do what.",)
        ),
        rule="tools.put_user_policy",
        reason=reason,
        key=digest.key(call),
        digest=digest.digest(call),
        created_at=now,
        expires_at=now + 900,
    )
