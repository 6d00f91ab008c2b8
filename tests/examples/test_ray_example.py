"""examples/ray_embed.py on its own sample, where Ray is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ray_embed.py"


def test_ray_embed(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed; pip install '.[test,ray]' to run this")
    parquet = pytest.importorskip("pyarrow.parquet")
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, EXAMPLE, *arguments], capture_output=True, text=True, encoding="utf-8", env=environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "--concurrency" in run("--help")
    run("--output", str(tmp_path / "vectors"))
    rows = parquet.read_table(tmp_path / "vectors")
    assert rows.column_names == ["id", "text", "embedding"] and sorted(rows["id"].to_pylist()) == list(range(5))
