"""Times of device work, and rows of results, for the GPU benchmarks. With --device cpu the same scripts run small and slow, as
a check of themselves; such times mean nothing."""

from __future__ import annotations

import argparse
import json
import math
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

WARMUP, REPEATS = 5, 15


@dataclass
class Row:
    """One comparison.

    Attributes:
        group: what is compared ("attention forward, bfloat16").
        case: the size ("lengths 8-64, D32").
        peer, peer_ms: the other implementation and its median in milliseconds; None where it cannot do the case.
        ours_ms, p20_ms, p80_ms: median and spread of ours.
        difference: largest |ours - reference| over the reference's largest value. The reference is float64 for most
            ops, float32 where that would not fit, and the peer where a whole model runs; training.py and
            batch_invariance.py say what theirs is.
        extra: rates and fractions by name.
    """

    group: str
    case: str
    peer: str
    peer_ms: float | None
    ours_ms: float
    p20_ms: float
    p80_ms: float
    difference: float
    extra: dict[str, float | str] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """How many times faster ours is."""
        return None if self.peer_ms is None else self.peer_ms / self.ours_ms


def arguments(description: str) -> argparse.Namespace:
    """--device, --out; sizes are small on a CPU."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--out", type=Path, help="a folder for the JSON file and the table")
    return parser.parse_args()


def times_ms(run: Callable[[object], object], inputs: Sequence, device: str) -> list[float]:
    """Milliseconds of `run(input)`, input after input so that no cache holds the next one's data.

    On a GPU between two events on the stream, around as many calls as take a few milliseconds.
    """
    for i in range(WARMUP if device == "cuda" else 1):
        run(inputs[i % len(inputs)])
    if device == "cpu":
        start = time.perf_counter()
        run(inputs[0])
        return [(time.perf_counter() - start) * 1e3]
    torch.cuda.synchronize()

    def timed(calls: int) -> float:
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        for i in range(calls):
            run(inputs[i % len(inputs)])
        after.record()
        after.synchronize()
        return before.elapsed_time(after) / calls

    one = max(timed(3), 1e-3)
    calls = max(1, min(200, math.ceil(3.0 / one)))
    return [timed(calls) for _ in range(REPEATS if one < 20 else 7)]


def alternate_ms(runs: dict[str, Callable], inputs: Sequence, device: str) -> dict[str, list[float]]:
    """times_ms of several, three rounds in turn, so that a drift of the clock meets all of them."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(3 if device == "cuda" else 1):
        for name, run in runs.items():
            found[name] += times_ms(run, inputs, device)
    return found


def spread(times: Sequence[float]) -> tuple[float, float, float]:
    """(median, p20, p80)."""
    if len(times) < 2:
        return times[0], times[0], times[0]
    cuts = statistics.quantiles(times, n=10, method="inclusive")
    return statistics.median(times), cuts[1], cuts[7]


def rows_of(
    group: str, case: str, times: dict[str, list[float]], difference: float, ours: str = "sentcore", **extra
) -> list[Row]:
    """A row for each peer in `times`."""
    median, p20, p80 = spread(times[ours])
    peers = [name for name in times if name != ours] or ["none"]
    return [
        Row(
            group,
            case,
            peer,
            statistics.median(times[peer]) if peer in times else None,
            median,
            p20,
            p80,
            difference,
            extra,
        )
        for peer in peers
    ]


def difference_of(ours: torch.Tensor, exact: torch.Tensor) -> float:
    """max |ours - exact| / max |exact|; NaN fails every comparison with a limit."""
    scale = float(exact.abs().max()) if exact.numel() else 1.0
    return float((ours.double() - exact.double().to(ours.device)).abs().max()) / max(scale, 1e-30)


def copy_bandwidth(device: str) -> float:
    """Bytes read plus bytes written a second of a large copy on the device."""
    count = 2**28 if device == "cuda" else 2**20
    source, target = torch.empty(count, device=device).normal_(), torch.empty(count, device=device)
    median, _, _ = spread(times_ms(lambda _: target.copy_(source), [None], device))
    return 2 * source.numel() * source.element_size() / (median * 1e-3)


def machine(device: str) -> dict[str, str]:
    """What the figures were taken on."""
    import sentcore

    name = torch.cuda.get_device_name() if device == "cuda" else "CPU (a check of the script, no measurement)"
    return {
        "device": name,
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "sentcore": sentcore.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def write(name: str, rows: Sequence[Row], options: argparse.Namespace, **extra) -> None:
    """Prints a table, and leaves <out>/<name>.json and <out>/<name>.md."""
    lines = [
        f"| {name} | case | peer | peer ms | sentcore ms | p20-p80 | times faster | difference | more |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        more = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.extra.items())
        peer_ms = "-" if row.peer_ms is None else f"{row.peer_ms:.4g}"
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        lines.append(
            f"| {row.group} | {row.case} | {row.peer} | {peer_ms} | {row.ours_ms:.4g} | "
            f"{row.p20_ms:.4g}-{row.p80_ms:.4g} | {ratio} | {row.difference:.1e} | {more} |"
        )
    print("\n".join(lines), flush=True)
    if options.out is None:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(options.device), **extra, "rows": [asdict(r) | {"ratio": r.ratio} for r in rows]}
    (options.out / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    (options.out / f"{name}.md").write_text("\n".join(lines) + "\n")


def can(run: Callable[[], object]) -> bool:
    """Whether a peer runs here at all: one that this machine, dtype or size is not for is left out, which is said."""
    try:
        run()
    except Exception as error:
        print(f"a peer is left out: {type(error).__name__}: {str(error).splitlines()[:1]}", flush=True)
        return False
    return True


@contextmanager
def kept(
    name: str, options: argparse.Namespace, limits: dict[str, float] | None = None, **extra
) -> Iterator[list[Row]]:
    """A list for a benchmark's rows, which are written whatever ends it: its end, an error, or gpu.sh's `timeout`.

    With `limits`, rows whose results are off are left out, and fail the run at its end: a figure of a wrong result is no
    figure, and the others stay.
    """
    rows: list[Row] = []

    def stop(*_) -> None:
        raise SystemExit(f"{name}: out of time after {len(rows)} rows")

    signal.signal(signal.SIGTERM, stop)
    try:
        yield rows
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # writing takes no time
        good = [row for row in rows if limits is None or row.difference <= _limit_of(row, limits)]
        if good:
            write(name, good, options, **extra)
    check(rows, limits or {"": math.inf})


def check(rows: Sequence[Row], limits: dict[str, float]) -> None:
    """Fails where a result is off: a figure of a wrong result is no figure. `limits`: dtype name -> largest difference."""
    for row in rows:
        limit = _limit_of(row, limits)
        if not row.difference <= limit:
            raise SystemExit(f"{row.group}, {row.case}: difference {row.difference:.3g}; accepted: at most {limit}")


def _limit_of(row: Row, limits: dict[str, float]) -> float:
    return next(value for key, value in limits.items() if key in row.group)
