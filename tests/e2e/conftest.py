from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


@pytest.fixture
def tmp_path():
    """Return a folder on a disk, as users have it: these tests kill gateways and read the files that stay."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Path(folder)
