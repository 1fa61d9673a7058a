"""A changed config file: what it changes at once, and what only a restart changes."""

import asyncio
import logging

import pytest

from gateway.app.config import load_config
from gateway.app.reloading import FIXED_KEYS, read_version, reload_config, watch_config
from hang import HANG

CONFIG = """
servers: {notes: {url: "http://127.0.0.1:1/mcp"}}
approvers: [{name: alice, slack: U1}]
agents: [{name: bot, token_sha256: 7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed}]
policy: {default: deny}
"""
CHANGES = {
    "listen": "127.0.0.1:1",
    "url": "https://mcp.example.com",
    "hosts": "[gateway.internal]",
    "trusted_proxies": "[10.0.0.1]",
    "store": "sqlite:///other.db",
    "store_key": "0123456789abcdef0123456789abcdef",
    "inbox": '{listen: "127.0.0.1:2"}',
    "slack": "{bot_token: xoxb, app_token: xapp, channel: C1}",
    "webhooks": '[{url: "https://example.com", secret: s}]',
}


class Running:
    """A gateway that adopts a config."""

    def __init__(self, config):
        self.config = config

    async def adopt(self, config):
        self.config = config


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "okayed.yaml"
    path.write_text(CONFIG)
    return path


@pytest.mark.parametrize("key", FIXED_KEYS)
async def test_a_change_that_needs_a_restart_is_named_in_a_warning(path, key, caplog):
    gateway = Running(load_config(path, {}))
    path.write_text(f"{CONFIG}{key}: {CHANGES[key]}\n")
    await reload_config(path, gateway)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        f"restart the gateway to apply the change of: {key}"
    ]


def test_every_key_that_is_read_at_the_start_only_is_known():
    assert set(FIXED_KEYS) == set(CHANGES)


async def test_a_changed_policy_needs_no_restart(path, caplog):
    gateway = Running(load_config(path, {}))
    path.write_text(CONFIG.replace("deny", "allow"))
    await reload_config(path, gateway)
    assert gateway.config.policy.default == "allow"
    assert [record for record in caplog.records if record.levelno == logging.WARNING] == []


async def test_an_invalid_config_changes_nothing(path, caplog):
    gateway = Running(config := load_config(path, {}))
    path.write_text(CONFIG.replace("deny", "perhaps"))
    await reload_config(path, gateway)
    assert gateway.config is config
    assert "the changed config is invalid" in caplog.text


@pytest.mark.parametrize("linked", [False, True])
async def test_a_change_of_the_file_or_of_its_link_is_loaded(path, tmp_path, linked):
    if linked:  # as Kubernetes mounts a folder
        (old := tmp_path / "old").mkdir()
        path.rename(old / path.name)
        (tmp_path / "..data").symlink_to(old)
        path.symlink_to(tmp_path / "..data" / path.name)
    loaded, gateway = read_version(path), Running(load_config(path, {}))
    text = CONFIG.replace("deny", "allow")
    if linked:
        (new := tmp_path / "new").mkdir()
        (new / path.name).write_text(text)
        (tmp_path / "link").symlink_to(new)
        (tmp_path / "link").replace(tmp_path / "..data")
    else:
        path.write_text(text)
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(HANG):
        watch = tasks.create_task(watch_config(path, gateway, loaded=loaded, interval=0.0))
        while gateway.config.policy.default != "allow":
            await asyncio.sleep(0)
        watch.cancel()
