"""Ratios of sentcore's speed to a yardstick's, both timed in one run, held against the ones committed in ratios.json.

    python bench/ratios.py           measures and compares; exit status 1 where a ratio is below half of the committed one
    python bench/ratios.py --write   measures and writes ratios.json

A ratio does not depend on how fast a machine is, and little on what else it does: both sides run in turn, round by round, on one
thread, and the fastest round of each counts. Machines with other instructions still differ by some tens of per cent, so only a gross
loss fails: a kernel that is no longer called, a copy or a wait that crept in. For finer questions there is bench.report.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import torch.nn.functional as F

import sentcore
from sentcore import ops
from sentcore.checkpoint import resolve

BASELINE = Path(__file__).with_name("ratios.json")
GROSS = 0.5  # of the committed ratio
ROUNDS = 5
Pair = tuple[Callable[[], object], Callable[[], object]]  # the yardstick, sentcore


def encode() -> Pair:
    """32 ragged texts, MiniLM in float32: sentence-transformers, and SentenceEncoder."""
    from sentence_transformers import SentenceTransformer

    texts = [f"sentence number {i} of a small benchmark " * (i % 8 + 1) for i in range(32)]
    peer = SentenceTransformer(str(resolve("minilm")), device="cpu")
    ours = sentcore.SentenceEncoder("minilm", device="cpu")
    return lambda: peer.encode(texts), lambda: ours.encode(texts)


def varlen_attention() -> Pair:
    """32 sentences of 8 to 256 tokens, N = 12, D = 32, float32: padded SDPA, and the op."""
    generator = torch.Generator().manual_seed(0)
    lengths = sorted(torch.randint(8, 257, (32,), generator=generator).tolist(), reverse=True)
    starts = [0, *accumulate(lengths)]
    qkv = torch.randn(starts[-1], 3, 12, 32, generator=generator)
    q, k, v = torch.zeros(3, len(lengths), 12, lengths[0], 32)
    mask = torch.zeros(len(lengths), 1, 1, lengths[0], dtype=torch.bool)
    for row, (first, last) in enumerate(pairwise(starts)):
        for target, part in zip((q, k, v), qkv[first:last].permute(1, 2, 0, 3), strict=True):
            target[row, :, : last - first] = part
        mask[row, ..., : last - first] = True
    cu_seqlens = torch.tensor(starts, dtype=torch.int32)
    return (
        lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask),
        lambda: ops.varlen_attention(qkv, cu_seqlens, lengths[0]),
    )


def add_layer_norm() -> Pair:
    """4,096 rows of 384 in float32: the definition in plain PyTorch, and the op."""
    x, residual = torch.randn(2, 4096, 384)
    weight, bias = torch.randn(2, 384)
    return (
        lambda: ops.reference.add_layer_norm(x, residual, weight, bias, eps=1e-12),
        lambda: ops.add_layer_norm(x, residual, weight, bias, eps=1e-12),
    )


MEASURED: dict[str, Callable[[], Pair]] = {
    "encode": encode,
    "varlen_attention": varlen_attention,
    "add_layer_norm": add_layer_norm,
}


def measure() -> dict[str, float]:
    """Name -> how many times as fast as the yardstick sentcore is here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return {name: _ratio(make()) for name, make in MEASURED.items()}
    finally:
        torch.set_num_threads(threads)


def _ratio(pair: Pair) -> float:
    for function in pair:
        function()  # weights are packed, memory is there
    fastest = [float("inf")] * 2
    for _ in range(ROUNDS):
        for side, function in enumerate(pair):
            began = time.perf_counter()
            function()
            fastest[side] = min(fastest[side], time.perf_counter() - began)
    return fastest[0] / fastest[1]


def lost(found: dict[str, float], baseline: dict[str, float]) -> list[str]:
    """A sentence for every ratio that fell below GROSS of the baseline's, or that only one of both has."""
    said = [
        f"{name}: {found[name]:.2f} times as fast as its yardstick, committed is {baseline[name]:.2f}"
        for name in baseline
        if name in found and found[name] < GROSS * baseline[name]
    ]
    return said + [
        f"{name}: measured or committed, not both; run --write" for name in sorted(found.keys() ^ baseline.keys())
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write ratios.json instead of comparing with it")
    options = parser.parse_args(arguments)
    if not sentcore.build_info()["extension"]["built"]:
        print("bench.ratios: the kernels are not built here, there is nothing to compare", file=sys.stderr)
        return 2
    found = measure()
    for name, ratio in found.items():
        print(f"{name}: {ratio:.2f} times as fast as its yardstick")
    if options.write:
        BASELINE.write_text(json.dumps({name: round(ratio, 2) for name, ratio in found.items()}, indent=1) + "\n")
        return 0
    problems = lost(found, json.loads(BASELINE.read_text()))
    for problem in problems:
        print(f"bench.ratios: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
