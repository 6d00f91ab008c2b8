"""The GPU benchmarks run, small and on a CPU, so that they are not found broken on the day a GPU is there."""

from __future__ import annotations

import json
import math
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


# ---- targets and the verdict ----

GPU = {"device": "NVIDIA H200", "torch": "2.13"}


def row(group, case, peer, **figures):
    return {"group": group, "case": case, "peer": peer, "extra": {}} | figures


def verdict(folder: Path) -> dict[str, list[str]]:
    """Target -> its further cells."""
    done = subprocess.run([sys.executable, BENCH / "gpu" / "verdict.py", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (folder / "verdict.md").read_text() == done.stdout
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
    return {name: rest for name, *rest in cells}


def write(folder: Path, stem: str, rows: list, machine: dict = GPU) -> None:
    (folder / f"{stem}.json").write_text(json.dumps({"machine": machine, "rows": rows}))


def test_what_is_absent_was_not_measured(tmp_path):
    write(tmp_path, "encoder", [], {"device": "CPU (a check of the script, no measurement)"})
    (tmp_path / "linear.json").write_text("{")
    write(tmp_path, "batch_invariance", [row("usual path", "MiniLM", "none", extra={"refused": "no"})])
    write(tmp_path, "attention", [row("attention forward, bfloat16", "lengths 8-64, D64", "torch.nn.attention.varlen")])
    found = verdict(tmp_path)
    assert len(found) == 15
    assert all(measured.startswith("not measured: ") and met == "-" for _, measured, met in found.values())
    why = {name: measured.removeprefix("not measured: ") for name, (_, measured, _) in found.items()}
    assert why["BERT-base forward, bfloat16, 128 tokens each"] == "encoder.json is of a CPU"
    assert why["one sentence, MiniLM, with a graph replayed"] == "no latency.json"
    assert why["batch_invariant=True, times the time without"] == "refused, no"
    assert why["attention forward, 512 tokens, D 64, bfloat16"] == "no such row"
    assert any("linear.json cannot be read" in reason for reason in why.values())


def test_the_worst_row_is_laid_beside_the_target(tmp_path):
    forward, varlen = "attention forward, bfloat16", "torch.nn.attention.varlen"
    write(
        tmp_path,
        "attention",
        [
            row(forward, "lengths 8-64, D32", varlen, ratio=3.5),
            row(forward, "lengths 8-64, D32", "SDPA, padded", ratio=1.0),
            row("attention forward + backward, bfloat16", "lengths 8-64, D32", varlen, ratio=1.0),
            row(forward, "lengths 512, D64", varlen, extra={"tflops": 329.0}),
        ],
    )
    cost = [row(f"batch_invariant, {dtype}", "MiniLM", "x", extra={"cost": value}) for dtype, value in
            (("float32", 1.02), ("bfloat16", 1.2))]  # fmt: skip
    write(tmp_path, "batch_invariance", cost)
    write(tmp_path, "latency", [row("one sentence, graph", "MiniLM, 16 tokens", "eager", ours_ms=math.nan)])
    texts = [
        row("texts, bfloat16", f"{m}, ragged", "sentence-transformers, float16", ratio=4.0)
        for m in ("MiniLM", "BERT-base")
    ]
    write(tmp_path, "texts", texts)
    found = verdict(tmp_path)
    assert found["attention forward, lengths 8-64, D 32, bfloat16, against torch's varlen"] == [
        "at least 3x",
        "3.5x",
        "yes",
    ]
    assert found["attention forward, 512 tokens, D 64, bfloat16"] == ["at least 330 TFLOP/s", "329 TFLOP/s", "no"]
    assert found["batch_invariant=True, times the time without"] == ["at most 1.1x", "1.2x (worst of 2: MiniLM)", "no"]
    assert found["one sentence, MiniLM, with a graph replayed"][2] == "no"
    assert found["BERT-base, ragged texts in, vectors out, against sentence-transformers in float16"][2] == "yes"


def test_every_target_names_rows_that_the_benchmarks_write(tmp_path):
    """Its patterns fit names that are put together here as the scripts do it, on sizes of a GPU."""
    bf16 = "bfloat16"
    named = {
        "attention": [(f"attention forward, {bf16}", f"lengths {n}, D{d}", "torch.nn.attention.varlen") for n in ("8-64", "512") for d in (32, 64)],
        "rowwise": [(f"add_layer_norm forward, {bf16}", "T65536 H768", "torch")],
        "linear": [(f"{c}, {bf16}", "T4096 H768", p) for c, p in (("linear from 4 H", "F.linear"), ("linear with GELU", "F.gelu(F.linear)"))],
        "encoder": [(f"encoder forward, {bf16}", f"BERT-base, {b}", p) for b in ("128", "512", "real") for p in ("transformers, SDPA, float16", "packed, torch's own ops")],
        "training": [("training step, bfloat16 autocast", "BERT-large, real", "transformers, SDPA, padded")],
        "batch_invariance": [(f"batch_invariant, {bf16}", "MiniLM, 512 sentences", "batch_invariant=False")],
        "texts": [("texts", f"{m}, ragged", "sentence-transformers, float16") for m in ("MiniLM", "BERT-base")],
        "latency": [("one sentence, graph replayed", "MiniLM, 16 tokens", "none")],
    }  # fmt: skip
    figures = {
        "ratio": 9.0,
        "ours_ms": 0.1,
        "extra": {"tflops": 999.0, "of_copy": 0.99, "tokens_per_second": 9e6, "cost": 1.0},
    }
    for stem, names in named.items():
        write(tmp_path, stem, [row(*name, **figures) for name in names])
    assert {met for _, _, met in verdict(tmp_path).values()} == {"yes"}
