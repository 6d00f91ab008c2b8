"""One to sixteen sentences, texts in and vectors out: milliseconds of a call of `encode` with and without CUDA graphs, beside
sentence-transformers in float16.

    python bench/gpu/latency.py --out bench/results/<gpu>

Wall-clock of whole calls, which end when the rows are on the host. Weights are random; rows are compared.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from sentence_models import LIMITS, PEER, SHAPES, difference, dtype_of, make_folder, ours, texts, theirs
from timing import arguments, kept, rows_of

SIZES = (1, 2, 4, 8, 16)
CALLS, ROUNDS = 20, 3  # each: so many calls of each, in turn
PLAIN, GRAPHS = "sentcore, no graphs", "sentcore, CUDA graphs"


def calls_ms(run, sets: list[list[str]], calls: int) -> list[float]:
    """Milliseconds of each call."""
    found = []
    for i in range(calls):
        start = time.perf_counter()
        run(sets[i % len(sets)])
        found.append((time.perf_counter() - start) * 1e3)
    return found


def main() -> None:
    options = arguments(__doc__)
    with kept("latency", options, LIMITS) as rows:
        measure(options.device, rows)


def measure(device: str, rows: list) -> None:
    """Adds to `rows`."""
    dtype = dtype_of(device)
    calls, rounds = (CALLS, ROUNDS) if device == "cuda" else (2, 1)
    pool = texts(64)
    for shape in SHAPES:
        with tempfile.TemporaryDirectory() as temporary:
            folder = make_folder(shape, device, Path(temporary) / "model")
            plain, graphs = ours(folder, device), ours(folder, device, graphs=True)
            peer = theirs(folder, device, plain.max_seq_length)
        for size in SIZES if device == "cuda" else (1, 3):
            sets = [pool[i : i + size] for i in range(0, len(pool) - size + 1, size)][:8]
            runs = {
                f"{PEER}, {dtype}": lambda some: peer.encode(some, show_progress_bar=False),
                PLAIN: plain.encode,
                GRAPHS: graphs.encode,
            }
            for _ in range(3):  # a graph of each size is captured by the second call
                for run in runs.values():
                    calls_ms(run, sets, len(sets))
            times = {name: [] for name in runs}
            for _ in range(rounds):
                for name, run in runs.items():
                    times[name] += calls_ms(run, sets, calls)
            off = max(
                difference(run(some), peer.encode(some)) for run in (plain.encode, graphs.encode) for some in sets
            )
            case = f"{shape}, {size} sentence{'s' if size > 1 else ''}"
            both = {name: found for name, found in times.items() if name != GRAPHS}
            for name, some in ((PLAIN, both), (GRAPHS, times)):
                p90 = {"p90_ms": quantile_90(times[name]), "peer_p90_ms": quantile_90(times[f"{PEER}, {dtype}"])}
                rows += rows_of(f"latency of {name}, {dtype}", case, some, off, ours=name, **p90)
        if not graphs.graphs.counts["replayed"]:
            raise SystemExit(
                f"{shape}: no graph was replayed ({graphs.graphs.counts}); a figure of graphs would be none"
            )
        print(shape, graphs.graphs.counts, f"{graphs.graphs.bytes / 2**20:.1f} MiB in {len(graphs.graphs)} graphs")


def quantile_90(times: list[float]) -> float:
    """The time that nine of ten calls stay within."""
    return times[0] if len(times) < 2 else statistics.quantiles(times, n=10, method="inclusive")[8]


if __name__ == "__main__":
    main()
