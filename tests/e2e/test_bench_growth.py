"""`bench/growth.py` measures every figure of a small store."""

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench" / "growth.py"
SMALL = ("--calls", "200", "--events", "1000", "--rounds", "1")


def run(store):
    return subprocess.run(
        [sys.executable, BENCH, *SMALL, "--store", store], capture_output=True, text=True, check=False
    )


def test_the_growth_bench_measures_openings_pages_holds_and_the_log(tmp_path):
    done = run(tmp_path / "filled.db")
    assert (done.stderr, done.returncode in {0, 1}) == ("", True)
    rows = done.stdout.splitlines()
    counts = [
        sum(row.startswith(name) for row in rows) for name in ("opening:", "page:", "hold:", "log --since")
    ]
    assert counts == [4, 10, 6, 1]
    assert done.returncode == any(row.endswith("missed") for row in rows)
    assert [file.name for file in tmp_path.iterdir() if file.is_dir()] == []
