"""The example config is complete and loads."""

from pathlib import Path

from gateway.app import config
from gateway.config.schema import build_schema
from gateway.policy.compiling import compile_policy
from gateway.policy.evaluation import Action, CallFacts
from gateway.tools.classify.risk import classify

TEXT = (Path(__file__).parents[1] / "config.example.yaml").read_text(encoding="utf-8")
ENVIRON = {
    "GITHUB_TOKEN": "g", "CI_BOT_TOKEN_SHA256": "a" * 64, "ALICE_TOKEN_SHA256": "b" * 64, "SLACK_BOT_TOKEN": "xoxb-1",
    "SLACK_APP_TOKEN": "xapp-1", "OKAYED_STATE_KEY": "k" * 32, "HOOK_SECRET": "whsec_x",
    "BILLING_CLIENT_SECRET": "s",
}  # fmt: skip


def test_the_example_config_loads_and_gives_verdicts():
    loaded = config.parse_config(TEXT, ENVIRON, lambda _: "k" * 32)
    policy = compile_policy(loaded)
    for tool, action in [
        ("get_user", Action.ALLOW),
        ("put_user_policy", Action.DENY),
        ("delete_user", Action.DENY),
        ("start_job", Action.REQUIRE_APPROVAL),
    ]:
        facts = CallFacts(
            server="iam", tool=tool, agent="ci-bot", arguments={}, classification=classify({"name": tool}, ())
        )
        assert policy.evaluate(facts).action is action  # put_user_policy lacks its required arguments


def test_the_example_config_has_every_key_of_the_schema():
    definitions = build_schema()["$defs"].values()
    keys = {key for definition in definitions for key in definition.get("properties", {})}
    missing = [key for key in sorted(keys) if f"{key}:" not in TEXT]
    assert missing == []
