from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


@pytest.fixture
def tmp_path():
    """Return a folder on disk, not in memory: these tests kill gateways and read the files left behind."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Path(folder)
