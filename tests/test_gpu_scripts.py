"""The GPU benchmarks run, small and on a CPU, so that they are not found broken on the day a GPU is there."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"
A_CALL, A_LEASE = 540, 800  # seconds


@pytest.mark.parametrize(
    "name",
    ["attention", "batch_invariance", "encoder", "latency", "linear", "rowwise", "sm_90a", "texts", "training"],
)
def test_a_benchmark_runs_and_writes_its_table(name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCH / "gpu")
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--device", "cpu", "--out", str(tmp_path)])
    before, known = signal.getsignal(signal.SIGTERM), set(sys.modules)
    try:
        runpy.run_path(str(BENCH / "gpu" / f"{name}.py"), run_name="__main__")  # in this process: imports take seconds
    finally:
        signal.signal(signal.SIGTERM, before)
        for module in {path.stem for path in (BENCH / "gpu").glob("*.py")} - known:
            sys.modules.pop(module, None)
    found = json.loads((tmp_path / f"{name}.json").read_text())
    assert found["machine"]["device"].startswith("CPU")
    assert found["rows"] and all(row["difference"] >= 0 for row in found["rows"])
    assert {"sentcore"} not in [{row["peer"]} for row in found["rows"]]
    if name == "latency":  # its target alone lies at a size that a CPU has time for
        targets = runpy.run_path(str(BENCH / "gpu" / "targets.py"))["TARGETS"]
        patterns = next(target.rows for target in targets if target.file == name)
        named = [" | ".join((row["group"], row["case"], row["peer"])) for row in found["rows"]]
        hit = [text for text in named if all(re.search(pattern, text, re.IGNORECASE) for pattern in patterns)]
        assert hit and all("CUDA graphs, " in text and " | MiniLM, 1 sentence | " in text for text in hit)
    assert (tmp_path / f"{name}.md").read_text().count("\n") == len(found["rows"]) + 2


def test_the_script_refuses_a_machine_without_a_gpu(tmp_path):
    # Where there is one, nvidia-smi lies beside these, and the script would build, test and measure.
    for tool in ("bash", "dirname"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    done = subprocess.run(
        [tmp_path / "bash", BENCH / "gpu.sh"], capture_output=True, text=True, env={"PATH": str(tmp_path)}
    )
    assert (done.returncode, done.stderr) == (2, "no NVIDIA GPU is seen here\n")


# ---- wrong results give no figures ----


def changed(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`code` run where the benchmarks are importable."""
    command = [
        sys.executable,
        "-c",
        f"import sys\nsys.path.insert(0, {str(BENCH / 'gpu')!r})\n{code}",
        *map(str, arguments),
    ]
    # Not from the checkout's root: Python would take the package there, which need not be the installed one.
    return subprocess.run(command, capture_output=True, text=True, cwd=BENCH / "gpu")


def test_gradients_that_differ_stop_the_training_benchmark():
    code = "import training\n{}print(len(training.measure('MiniLM', ['real'], 'float32', 'cpu')))"
    assert changed(code.format("")).stdout.split() == ["1"]
    done = changed(code.format("training.packed = lambda model, batch: model(batch['packed']) * 1.001\n"))
    assert done.returncode == 1 and "losses or gradients differ by 0.00" in done.stderr


def test_bits_that_change_stop_the_batch_invariance_benchmark():
    code = "import batch_invariance as b\nb.largest_difference = lambda *_: (1e-7, 3)\nb.main()"
    done = changed(code, "--device", "cpu")
    assert done.returncode == 1 and "3 sentences change their bits with the batch, by 1e-07" in done.stderr


def test_where_batch_invariance_is_refused_the_usual_path_is_shown(tmp_path):
    code = """import batch_invariance, sentcore.sentence_encoder as face
from sentcore.errors import ArgumentValueError
def refuse(*_):
    raise ArgumentValueError("not tried here")
face.check_batch_invariant = refuse
batch_invariance.main()"""
    done = changed(code, "--device", "cpu", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "batch_invariance.json").read_text())["rows"]
    assert {row["extra"]["refused"] for row in rows} == {"not tried here"} and len(rows) == 4
    assert all(row["group"].startswith("usual path") and "cost" not in row["extra"] for row in rows)


KEPT = """import os, signal, time, timing
with timing.kept("some", timing.arguments("a"), {{"float32": 1e-3}}) as rows:
    rows += timing.rows_of("one, float32", "case", {{"torch": [2.0], "sentcore": [1.0]}}, 1e-6)
    {}
"""


@pytest.mark.parametrize(
    ("then", "says"),
    [
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", "some: out of time after 1 rows"),
        ("raise ValueError('no such peer')", "no such peer"),
        (
            "rows += timing.rows_of('two, float32', 'case', {'torch': [2.0], 'sentcore': [1.0]}, float('nan'))",
            "two, float32, case: difference nan; accepted: at most 0.001",
        ),
    ],
)
def test_rows_stay_whatever_ends_a_benchmark(tmp_path, then, says):
    done = changed(KEPT.format(then), "--device", "cpu", "--out", tmp_path)
    assert done.returncode == 1 and says in done.stderr
    assert [row["group"] for row in json.loads((tmp_path / "some.json").read_text())["rows"]] == ["one, float32"]


# ---- the stages of gpu.sh ----


def plan(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", BENCH / "gpu.sh", "--plan", *arguments], capture_output=True, text=True)


def seconds(text: str) -> dict[str, int]:
    *stages, _ = text.splitlines()
    return {name: int(limit) for name, limit in map(str.split, stages)}


def test_all_stages_take_two_calls_that_fit_a_short_lease():
    script = (BENCH / "gpu.sh").read_text()
    calls = [line.split() for line in script.splitlines() if line.startswith("#   bench/gpu.sh --only ")]
    assert len(calls) == 2
    plans = [plan("--only", call[call.index("--only") + 1]).stdout for call in calls]
    sums = [sum(seconds(text).values()) for text in plans]
    for call, together in zip(calls, sums, strict=True):
        assert str(together) in " ".join(call).replace(",", " ").split()  # as the script itself says
        assert together < A_CALL
    assert sum(sums) < A_LEASE
    whole = plan().stdout
    assert seconds(whole) == {name: limit for text in plans for name, limit in seconds(text).items()}
    assert "suite" not in whole and "suite 520" in plan("--only", "suite").stdout
    assert int(whole.split()[-4]) < A_CALL  # and a single call stops there


def test_every_benchmark_is_a_stage():
    helpers = {"timing", "targets", "verdict", "choose", "sentence_models"}
    assert {path.stem for path in (BENCH / "gpu").glob("*.py")} - helpers <= set(
        seconds(plan("--only", "bench").stdout)
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--only", "nothing"], "--only names nothing; accepted: build kernels models"),
        (["--only"], "--only is empty; accepted: stages of build"),
        (["--fast"], "the option --fast is not known; accepted: --only"),
    ],
)
def test_a_wrong_option_is_named(arguments, says):
    done = plan(*arguments)
    assert done.returncode == 2 and says in done.stderr


@pytest.fixture
def stubbed(tmp_path):
    """gpu.sh beside benchmarks that do nothing, run by programs that stand in for a GPU's tools and for Python."""
    (tmp_path / "bench" / "gpu").mkdir(parents=True)
    (tmp_path / "bench" / "gpu.sh").write_text((BENCH / "gpu.sh").read_text())
    for path in (BENCH / "gpu").glob("*.py"):
        (tmp_path / "bench" / "gpu" / path.name).touch()
    tools = tmp_path / "tools"
    tools.mkdir()
    shutil.copy(BENCH / "gpu" / "sanitize.sh", tmp_path / "bench" / "gpu")
    python = 'case "$*" in *attention.py*) exec sleep 30 ;; *linear.py*) exit 3 ;; esac'
    # Two processes' reports: that of racecheck finds something in the second.
    sanitizer = """case "$*" in *racecheck*) found=2 ;; *) found=0 ;; esac
while [ "$1" != --log-file ]; do shift; done
echo "========= ERROR SUMMARY: 0 errors" >"${2%\\%p}7"
echo "========= RACECHECK SUMMARY: $found hazards displayed" >"${2%\\%p}8"
"""
    for name, does in (("nvidia-smi", "echo NVIDIA H200"), ("python3", python), ("compute-sanitizer", sanitizer)):
        (tools / name).write_text(f"#!/bin/sh\n{does}\n")
        (tools / name).chmod(0o755)

    def run(*arguments: str, seconds: int = 530):
        environment = {"PATH": f"{tools}:/usr/bin:/bin", "SENTCORE_GPU_SECONDS": str(seconds)}
        command = ["bash", tmp_path / "bench" / "gpu.sh", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    return run


def test_chosen_stages_run_and_failures_are_told(stubbed, tmp_path):
    done = stubbed("--only", "build,models,memcheck,rowwise,verdict", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    logs = {path.stem for path in (tmp_path / "out").glob("*.log")}
    assert logs == {"build", "models", "memcheck", "rowwise", "verdict"}
    assert "done, all well" in done.stdout
    assert (tmp_path / "bench" / "results" / "nvidia-h200").is_dir()
    with tarfile.open(tmp_path / "out.tar.gz") as packed:
        assert {f"out/{name}.log" for name in logs} < set(packed.getnames())
    done = stubbed("--only", "sanitize,rowwise,linear")
    assert done.returncode == 1
    assert "racecheck FAILED (exit 1" in done.stdout and "linear FAILED (exit 3" in done.stdout
    assert "2 hazards" in done.stdout
    assert "memcheck FAILED" not in done.stdout and "done, with FAILURES" in done.stdout


def test_a_call_ends_when_its_seconds_are_over(stubbed):
    done = stubbed("--only", "attention,encoder,verdict", seconds=6)
    assert done.returncode == 1
    assert "attention FAILED (exit 124: out of time, log: " in done.stdout
    assert "encoder NOT RUN: " in done.stdout and "verdict NOT RUN: " not in done.stdout
    done = stubbed(seconds=4)
    assert done.returncode == 1 and "build NOT RUN: " in done.stdout and "encoder" not in done.stdout
