"""64 workers at one driver: each region is done once, and what that takes is told."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "many_workers.py"


def test_all_regions_of_many_workers_are_done(tmp_path):
    done = subprocess.run(
        [sys.executable, BENCHMARK, tmp_path, "--workers", "64", "--regions", "1000"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\| 64 \| 1000 \|", done.stdout, re.M), done.stdout
