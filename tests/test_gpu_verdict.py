"""Results of the GPU benchmarks beside what is wanted of them: bench/gpu/targets.py and verdict.py."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1] / "bench"
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
    write(
        tmp_path,
        "latency",
        [row("latency of sentcore, CUDA graphs, float16", "MiniLM, 1 sentence", "eager", ours_ms=math.nan)],
    )
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
        "latency": [("latency of sentcore, CUDA graphs, float16", "MiniLM, 1 sentence", "none")],
    }  # fmt: skip
    figures = {
        "ratio": 9.0,
        "ours_ms": 0.1,
        "extra": {"tflops": 999.0, "of_copy": 0.99, "tokens_per_second": 9e6, "cost": 1.0},
    }
    for stem, names in named.items():
        write(tmp_path, stem, [row(*name, **figures) for name in names])
    assert {met for _, _, met in verdict(tmp_path).values()} == {"yes"}
