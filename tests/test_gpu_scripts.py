"""The GPU benchmarks run, small and on a CPU, so that they are not found broken on the day a GPU is there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"


@pytest.mark.parametrize("name", ["attention", "encoder", "latency", "linear", "rowwise", "texts"])
def test_a_benchmark_runs_and_writes_its_table(name, tmp_path):
    command = [sys.executable, BENCH / "gpu" / f"{name}.py", "--device", "cpu", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / f"{name}.json").read_text())
    assert found["machine"]["device"].startswith("CPU")
    assert found["rows"] and all(row["difference"] >= 0 for row in found["rows"])
    assert {"sentcore"} not in [{row["peer"]} for row in found["rows"]]
    assert (tmp_path / f"{name}.md").read_text().count("\n") == len(found["rows"]) + 2


def test_the_script_refuses_a_machine_without_a_gpu():
    done = subprocess.run(["bash", BENCH / "gpu.sh"], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert (done.returncode, done.stderr) == (2, "no NVIDIA GPU is seen here\n")
