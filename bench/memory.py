"""Peak memory of encoding 10,000 short texts, alone and beside one line of a megabyte, each in a process of its own."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

LIMIT = 1.2
WORDS = [
    "storage",
    "engine",
    "of",
    "a",
    "database",
    "with",
    "transactions",
    "and",
    "an",
    "index",
    "over",
    "documents",
    "in",
    "memory",
]


def run(long_line: bool, backend: str) -> None:
    import torch

    import sentcore

    torch.set_num_threads(2)
    model = sentcore.SentenceEncoder("minilm", device="cpu", backend=backend)
    texts = [" ".join(WORDS[: i % len(WORDS) + 1]) + f" {i}" for i in range(10_000)]
    if long_line:
        texts.insert(5_000, (" ".join(WORDS) + " ") * (2**20 // 84 + 1))
        assert len(texts[5_000]) >= 2**20
    model.encode(texts, show_progress_bar=False)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measure(long_line: bool, backend: str) -> float:
    command = [sys.executable, __file__, "--backend", backend, "--one", str(int(long_line))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="auto", help="auto or reference")
    parser.add_argument("--one", choices=["0", "1"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        run(options.one == "1", options.backend)
        return 0
    without, beside = measure(False, options.backend), measure(True, options.backend)
    print(f"10,000 short texts: {without:.0f} MiB; beside 1 MB in one line: {beside:.0f} MiB; {beside / without:.3f}x")
    return int(beside > LIMIT * without)


if __name__ == "__main__":
    sys.exit(main())
