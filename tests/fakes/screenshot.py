"""Takes docs/inbox.png: the inbox with five waiting calls, one of them open. Run by `make screenshot`."""

import asyncio
import json
from pathlib import Path

from approvals.model import Classification
from browser import chromium, window
from inbox import Inbox, token

PICTURE = Path(__file__).parents[2] / "docs" / "inbox.png"
DOCUMENT = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Sid": "ReadReports",
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:ListBucket"],
            "Resource": ["arn:aws:s3:::acme-reports", "arn:aws:s3:::acme-reports/*"],
        },
        {"Effect": "Allow", "Action": "iam:PassRole", "Resource": "*"},
    ],
}
OPEN = {
    "user_name": "svc-reports", "policy_name": "reports-read", "policy_document": json.dumps(DOCUMENT),
}  # fmt: skip
#: Tool, server, agent, owner; arguments; seconds left, approvals needed; category, risk class, severity.
CALLS = [
    ("delete_branch", "github", "release-agent", "jonas", {"branch": "v2\u202e/main"}, 536, 1, ("Destructive", "High", "high")),
    ("put_user_policy", "iam", "ci-bot", "maria", OPEN, 760, 2, ("Write", "Medium", "high")),
    ("create_refund", "stripe", "billing", "priya", {"charge": "ch_1", "amount": 4200}, 1180, 2, ("Financial", "Critical", "high")),
    ("send_email", "gmail", "helper", None, {"to": "team@example.com"}, 1750, 1, ("Write", "Medium", "medium")),
    ("run_query", "postgres", "analyst", "priya", {"sql": "UPDATE t SET a = 1"}, 2670, 1, ("Execute", "High", "high")),
]  # fmt: skip


async def hold(inbox, tool, server, agent, owner, arguments, left, needed, classification):
    """Hold one call."""
    category, risk, severity = classification
    return await inbox.hold(
        tool,
        server=server, agent=agent, owner=owner, arguments=json.dumps(arguments).encode(), needed=needed,
        expires_at=inbox.now + left, classification=Classification(category=category, risk=risk, severity=severity),
    )  # fmt: skip


async def main():
    """Hold the calls, open one as alice, and take the screenshot."""
    async with (
        Inbox(tools=list) as inbox,
        chromium() as browser,
        window(browser, inbox.here, viewport={"width": 1280, "height": 800}) as page,
    ):
        held = [await hold(inbox, *call) for call in CALLS]
        await inbox.approve(held[1], reason="The bucket is ours, and PassRole is intended.")
        await page.goto("/login")
        await page.get_by_label("Your approver token").fill(token("alice"))
        await page.get_by_role("button", name="Sign in").click()
        await page.goto(f"/calls/{held[1].id}")
        await page.locator("#live.on").wait_for()
        await page.screenshot(path=PICTURE)


if __name__ == "__main__":
    asyncio.run(main())
