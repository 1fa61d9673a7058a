"""The limit on open files, and its division."""

import resource
import subprocess
import sys

import pytest

from gateway.app import file_limit
from rows import each_row

LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from gateway.app import file_limit
print(file_limit.raise_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(("soft", "hard", "raised"), [(256, 2048, 2048), (300, 300, 300)])
def test_the_soft_limit_is_raised_to_the_hard_one(soft, hard, raised):
    script = LIMITED.format(soft=soft, hard=hard)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(raised)] * 2


@each_row(
    ("files", "agents", "inbox"), [(1024, 832, 128), (4096, 3520, 512), (65536, 57280, 8192), (100, 1, 128)]
)
def test_files_for_the_inbox_and_the_gateway_are_reserved(files, agents, inbox):
    assert file_limit.divide_files(files) == (agents, inbox)


@pytest.mark.parametrize(
    ("hard", "warned"), [(1024, True), (4095, True), (4096, False), (resource.RLIM_INFINITY, False)]
)
def test_a_low_hard_limit_causes_a_warning(hard, warned, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, hard))
    assert bool(list(file_limit.limit_warnings())) == warned
