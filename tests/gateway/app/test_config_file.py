"""The keys of the store, read without the rest of the config."""

import pytest

from gateway.app.config_file import StoreConfig, read_store_config
from gateway.config.problems import ConfigProblems


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "okayed.yaml"

    def write(text):
        path.write_text(text)
        return path

    return write


def test_the_store_is_read_without_the_secrets_of_other_keys(config, tmp_path):
    path = config(
        "store: sqlite:///data/${NAME}.db\nstore_key: '${KEY}'\nslack: {bot_token: '${UNSET}'}\nservers: {}\n"
    )
    assert read_store_config(path, {"NAME": "a", "KEY": "k" * 32}) == StoreConfig(
        f"sqlite:///{tmp_path}/data/a.db", "k" * 32
    )


def test_a_config_without_a_store_has_the_default_store_in_its_folder(config, tmp_path):
    assert read_store_config(config("servers: {}"), {}) == StoreConfig(f"sqlite:///{tmp_path}/okayed.db")


def test_a_store_in_memory_has_no_path(config):
    assert read_store_config(config("store: 'memory:'"), {}) == StoreConfig("memory:")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("store: postgresql://db", "store: this must be sqlite:///path"),
        ("store: {file: a}", "store: this must be sqlite:///path"),
        ("store: '${UNSET}'", "store: the environment variable UNSET is not set"),
        ("store_key: [a]", "store_key: this must be text"),
        ("store_key: '${UNSET}'", "store_key: the environment variable UNSET is not set"),
    ],
)
def test_an_invalid_store_is_a_problem(config, written, message):
    with pytest.raises(ConfigProblems, match=message):
        read_store_config(config(written), {})
