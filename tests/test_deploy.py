"""The files in deploy: what gets into the image, and how the container stops."""

import re
import tomllib
from pathlib import Path

from gateway.app import gateway
from gateway.config import yaml
from gateway.config.options import parse_duration
from gateway.fronts import listener

ROOT = Path(__file__).parents[1]
LINES = re.sub(r"\\\n\s*", "", (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")).splitlines()
STAGES = [number for number, line in enumerate(LINES) if line.startswith("FROM ")]


def copied():
    """Return what the image is built from: the names in the COPY lines of the first stage."""
    found = [line.split()[1:-1] for line in LINES[: STAGES[1]] if line.startswith("COPY ")]
    return {name for names in found for name in names}


def service():
    text = (ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8")
    return yaml.read_document(text, {}, str).value["services"]["okayed"]


def test_the_image_is_built_from_named_files_in_a_stage_that_is_left_behind():
    assert len(STAGES) == 2
    assert {"approvals", "gateway"} <= copied()
    assert not copied() & {".", "./", "*", "deploy", "tests"}
    later = [line for line in LINES[STAGES[1] :] if line.startswith(("COPY ", "ADD "))]
    assert [line.split()[1] for line in later] == ["--from=build"]


def test_nothing_else_reaches_the_builder():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*", "a config and data beside the compose file, and .git, stay out"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied()
    assert "**/*.db*" in rules


def test_what_the_image_is_built_from_is_all_that_the_build_reads():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {
        pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    read = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert copied() == packages | read | {"constraints.txt"}


def test_a_stopped_container_has_longer_than_running_calls_have():
    assert parse_duration(service()["stop_grace_period"]) >= gateway.GRACE + 5 * listener.LINGER
    assert (service()["init"], service()["restart"]) == (True, "unless-stopped")


def test_the_container_writes_its_volumes_and_tmp_alone_and_is_asked_whether_it_lives():
    assert service()["read_only"] is True
    assert service()["tmpfs"] == ["/tmp"]
    assert service()["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service()["security_opt"]
    assert "USER 10001" in LINES
    assert "http://127.0.0.1:8808/healthz" in service()["healthcheck"]["test"][-1]
