"""examples/classify.py under torchrun: two processes train one model, and one of them prints and saves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LIMIT_S = 400  # most of it for the imports on a busy machine


def torchrun(*arguments) -> str:
    """What two processes of a command print; they are ended at the limit."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    running = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
    )
    try:
        said, errors = running.communicate(timeout=LIMIT_S)
    finally:
        if running.poll() is None:
            running.terminate()  # not kill: torchrun's processes, in sessions of their own, are for it to end
            running.wait(timeout=90)
    assert running.returncode == 0, errors
    return said


def numbers(said: str, name: str) -> list[float]:
    return [float(number) for number in re.findall(rf"^{name} +before ([\d.]+) +after ([\d.]+)$", said, re.M)[0]]


@pytest.mark.skipif(torch.cuda.is_available(), reason="compares with one process on a CPU")
def test_two_processes_of_half_the_batch_train_as_one(tiny, tmp_path, run, capfd):
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("this build of torch has no gloo")
    pytest.importorskip("accelerate")
    sample = EXAMPLES / "data" / "topics.jsonl"
    rows = tmp_path / "rows.jsonl"  # as many as batches take, so that none is filled up
    rows.write_text("\n".join(sample.read_text(encoding="utf-8").split("\n")[:80]), encoding="utf-8")
    options = ("--data", rows, "--test", sample, "--model", tiny, "--epochs", 2, "--learning-rate", 1e-3)
    together = torchrun(EXAMPLES / "classify.py", *options, "--batch-size", 8, "--out", tmp_path / "two")
    run("classify", *options, "--batch-size", 16, "--out", tmp_path / "one")
    alone = capfd.readouterr().out

    for line in ("80 texts to train on, 96 to test on", "saved "):
        assert together.count(line) == 1
    for name in ("accuracy", "macro_f1", "loss"):
        assert numbers(together, name) == pytest.approx(numbers(alone, name), abs=0.02), name
    two, one = (load_file(tmp_path / folder / "model.safetensors") for folder in ("two", "one"))
    # A key's bias has no gradient but rounding, which AdamW scales up to whole steps.
    for name in (name for name in one if not name.endswith(".key.bias")):
        assert (two[name] - one[name]).norm() <= 1e-4 * one[name].norm(), name
