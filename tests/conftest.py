"""Lets tests import the fakes and write to memory if there is room, and sets the Hypothesis profile."""

import os
import shutil
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent / "fakes"))

#: A file system in memory, and the free bytes that it must have: a container may give it 64 MB.
MEMORY, ROOM = Path("/dev/shm"), 1 << 30

if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

settings.register_profile(
    "fast", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "deep", max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def pytest_collection_modifyitems(items):
    """Run the end-to-end tests first: they wait for processes, and would delay the end."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)
