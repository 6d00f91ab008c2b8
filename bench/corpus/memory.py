"""Peak memory of `sentcore encode` over 1,000,000 short texts and over 50,000, each in a process of its own."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tiny import make_corpus, make_model

LIMIT = 1.3


def peak(folder: Path, rows: int, kind: str) -> float:
    """MiB of the largest resident set."""
    corpus = make_corpus(folder / f"{rows}.jsonl", rows)
    output = folder / f"out.{kind}"
    code = "import resource, sys; from sentcore.cli import main; s = main(); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(s)"
    argv = ["encode", "--input", str(corpus), "-o", str(output), "-m", str(folder / "model"), "--quiet"]
    argv += [] if kind == "npy" else ["--id", "id"]  # npy holds rows alone
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], check=True, capture_output=True, text=True, env=dict(os.environ)
    )
    corpus.unlink()
    output.unlink()
    return float(done.stdout) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs=2, default=(50_000, 1_000_000))
    parser.add_argument("--kind", choices=("parquet", "jsonl", "npy"), default="parquet")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        make_model(Path(name) / "model")
        few, many = (peak(Path(name), rows, options.kind) for rows in options.rows)
    print(f"{options.rows[0]:,} texts: {few:.0f} MiB; {options.rows[1]:,} texts: {many:.0f} MiB; {many / few:.3f}x")
    return int(many > LIMIT * few)


if __name__ == "__main__":
    sys.exit(main())
