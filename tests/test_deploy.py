"""The files in deploy/: the contents of the image, and the way a container stops."""

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
    """Return the files that the image is built from: the names in the COPY lines of the first stage."""
    found = [line.split()[1:-1] for line in LINES[: STAGES[1]] if line.startswith("COPY ")]
    return {name for names in found for name in names}


def service():
    text = (ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8")
    return yaml.read_document(text, {}, str).value["services"]["okayed"]


def test_the_image_is_built_from_named_files_in_a_separate_stage():
    assert len(STAGES) == 2
    assert {"approvals", "gateway"} <= copied()
    assert not copied() & {".", "./", "*", "deploy", "tests"}
    later = [line for line in LINES[STAGES[1] :] if line.startswith(("COPY ", "ADD "))]
    assert [line.split()[1] for line in later] == ["--from=build"]


def test_the_build_context_has_no_other_files():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*", "a config and data beside the compose file, and .git, stay out"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied()
    assert "**/*.db*" in rules


def test_the_image_is_built_from_all_files_that_the_build_reads():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {
        pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    read = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert copied() == packages | read | {"constraints.txt"}


def test_the_stop_timeout_is_longer_than_the_drain_of_running_calls():
    assert parse_duration(service()["stop_grace_period"]) >= gateway.GRACE + 5 * listener.CLOSE_SECONDS
    assert (service()["init"], service()["restart"]) == (True, "unless-stopped")


def test_the_container_writes_only_to_its_volumes_and_tmp_and_has_a_health_check():
    assert service()["read_only"] is True
    assert service()["tmpfs"] == ["/tmp"]
    assert service()["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service()["security_opt"]
    assert "USER 10001" in LINES
    assert "http://127.0.0.1:8808/healthz" in service()["healthcheck"]["test"][-1]
