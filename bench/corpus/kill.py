"""Kills `sentcore encode` at random moments with SIGKILL, resumes it, and compares the file with an uninterrupted run's.

Each run is a process of its own, forked from one that has encoded a text, so that its time goes into shards, not imports.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from tiny import make_corpus, make_model

import sentcore.pipeline.corpus.parquet
import sentcore.pipeline.corpus.sources
from sentcore.cli import main as sentcore_main
from sentcore.sentence_encoder import SentenceEncoder


def start(folder: Path, output: Path, *more: str) -> int:
    """Begins a run; its process id."""
    files = ("--input", str(folder / "in.jsonl"), "-o", str(output))
    argv = ["encode", *files, "-m", str(folder / "model"), "--id", "id", "--device", "cpu", "--quiet", *more]
    child = os.fork()
    if child == 0:
        try:
            os._exit(sentcore_main(argv))
        finally:
            os._exit(99)
    return child


def finish(child: int) -> None:
    """Waits for a run that has to end well."""
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        sys.exit(f"a run ended with status {status}")


def begun(output: Path) -> None:
    """Waits until a run has a manifest."""
    while not output.with_name(output.name + ".parts").joinpath("manifest.json").exists():
        time.sleep(0.002)


def killed(folder: Path, output: Path, within: float, draw: random.Random) -> str:
    """Starts a run, kills it at a random moment behind its beginning, and tells how far it was."""
    delay = draw.uniform(0, within)
    child = start(folder, output)
    begun(output)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    parts = output.with_name(output.name + ".parts")
    return f"after {delay:5.2f} s with {len(list(parts.glob('*.shard'))):2d} shards" + (
        " and the file" if output.exists() else ""
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument(
        "--shard-rows", type=int, default=300, help="instead of 16,384, so that a short run has many shards"
    )
    parser.add_argument("--kind", choices=("parquet", "jsonl", "npy"), default="parquet")
    options = parser.parse_args()
    for module in (sentcore.pipeline.corpus.sources, sentcore.pipeline.corpus.parquet):
        module.SHARD_ROWS = options.shard_rows
    same = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "model")
        make_corpus(folder / "in.jsonl", options.rows)
        whole, output = folder / f"whole.{options.kind}", folder / f"out.{options.kind}"
        SentenceEncoder(folder / "model", device="cpu").encode("index")
        child = start(folder, whole)
        begun(whole)
        began = time.perf_counter()
        finish(child)
        lasts = time.perf_counter() - began
        wanted = hashlib.sha256(whole.read_bytes()).hexdigest()
        draw = random.Random(0)
        for k in range(options.kills):
            where = killed(folder, output, lasts, draw)
            finish(start(folder, output, "--resume"))
            right = hashlib.sha256(output.read_bytes()).hexdigest() == wanted
            clean = sorted(p.name for p in folder.iterdir()) == sorted(["in.jsonl", "model", whole.name, output.name])
            same += right and clean
            print(
                f"kill {k + 1}: {where}: {'identical' if right else 'DIFFERS'}{'' if clean else ', LEFTOVERS'}",
                flush=True,
            )
            output.unlink()
    print(f"{same} of {options.kills} resumed runs gave the uninterrupted run's bytes")
    return int(same < options.kills)


if __name__ == "__main__":
    sys.exit(main())
