"""Texts in, vectors out, tokenizing included: texts a second of `encode` beside sentence-transformers in float16 at several
batch sizes, and the share of the time in which no batch was on the GPU.

    python bench/gpu/texts.py --out bench/results/<gpu>

Lengths are ragged, a sentence to a page. Weights are random; rows are compared.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from sentence_models import LIMITS, PEER, SHAPES, difference, dtype_of, make_folder, ours, texts, theirs
from timing import arguments, kept, rows_of

COUNT, ROUNDS = 4_096, 2  # seven times through by sentence-transformers, for each model
BATCH_SIZES = (32, 128, 512)  # of sentence-transformers, which sorts all texts by length first


def seconds(run, some: list[str]) -> float:
    """Of one call, which ends when the rows are on the host."""
    start = time.perf_counter()
    run(some)
    return time.perf_counter() - start


def idle_share(encoder, some: list[str]) -> float:
    """1 - (time between the first and the last op of each batch, by events on the stream) / the call's time."""
    events = []
    finished = encoder.model.finished_rows  # what a GPU's batches go through, to rows that are ready

    def marked(*given, **options):
        pair = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        pair[0].record()
        rows = finished(*given, **options)
        pair[1].record()
        events.append(pair)
        return rows

    encoder.model.finished_rows = marked
    try:
        taken = seconds(encoder.encode, some)
    finally:
        del encoder.model.finished_rows
    torch.cuda.synchronize()
    if not events:
        raise SystemExit("no batch went through finished_rows, so how long the GPU was idle is not known")
    return 1 - sum(before.elapsed_time(after) for before, after in events) / (taken * 1e3)


def main() -> None:
    options = arguments(__doc__)
    with kept("texts", options, LIMITS) as rows:
        measure(options.device, rows)


def measure(device: str, rows: list) -> None:
    """Adds to `rows`."""
    dtype = dtype_of(device)
    some = texts(COUNT if device == "cuda" else 48)
    rounds = ROUNDS if device == "cuda" else 1
    for shape in SHAPES:
        with tempfile.TemporaryDirectory() as temporary:
            folder = make_folder(shape, device, Path(temporary) / "model")
            encoder = ours(folder, device)
            peer = theirs(folder, device, encoder.max_seq_length)
        runs = {
            f"{PEER}, {dtype}, batch_size={size}": lambda some, size=size: peer.encode(
                some, batch_size=size, show_progress_bar=False
            )
            for size in BATCH_SIZES
        }
        runs["sentcore"] = encoder.encode
        for run in runs.values():
            run(some[: max(48, len(some) // 16)])
        times = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                times[name].append(seconds(run, some) * 1e3)
        tokens = int(encoder.tokenizer.encode(some, max_length=encoder.max_seq_length).offsets[-1])
        taken = sorted(times["sentcore"])[len(times["sentcore"]) // 2] / 1e3
        tokenizing = seconds(lambda texts: encoder.tokenizer.encode(texts, max_length=encoder.max_seq_length), some)
        extra = {
            "texts_per_second": len(some) / taken,
            "tokens_per_second": tokens / taken,
            "tokenizing_alone_of_time": tokenizing / taken,
        }
        if device == "cuda":
            extra["gpu_idle_share"] = idle_share(encoder, some)
        few = some[:2048]
        off = difference(encoder.encode(few), peer.encode(few, batch_size=128, show_progress_bar=False))
        rows += rows_of(f"texts in, vectors out, {dtype}", f"{shape}, {len(some)} texts", times, off, **extra)


if __name__ == "__main__":
    main()
