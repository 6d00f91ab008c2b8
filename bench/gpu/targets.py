"""What is wanted of one H200, as data: a figure, the rows of bench/results/<gpu>/*.json that hold it, and the bound.

None of these is a measurement; verdict.py lays them beside what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One figure.

    Attributes:
        name: what is wanted, for the table.
        file: stem of the file of results.
        rows: patterns (re, any case) that are all found in a row's "group | case | peer".
        figure: "ratio" (times faster than the peer), "ours_ms", or a name among the row's extra figures.
        bound: the worst of the rows is to be at least this, or with at_most at most this.
        unit: written behind the figures.
        at_most: whether less is better.
    """

    name: str
    file: str
    rows: tuple[str, ...]
    figure: str
    bound: float
    unit: str = "x"
    at_most: bool = False


_HALF_ST = r"\| .*(sentence-transformers|\bST\b|SDPA).*(float16|fp16|half)"
_PLAIN_ONE = r"\| F\.linear$|\| one F\.linear"
_TOKENS_4K = r"\bT(4096|16384|65536)\b"

TARGETS = (
    Target(
        "attention forward, lengths 8-64, D 32, bfloat16, against torch's varlen", "attention",
        (r"^attention forward, bfloat16 ", r"lengths 8-64, D32\b", r"varlen$"), "ratio", 3.0,
    ),
    Target(
        "attention forward, 512 tokens, D 64, bfloat16", "attention",
        (r"^attention forward, bfloat16 ", r"lengths 512, D64\b"), "tflops", 330.0, "TFLOP/s",
    ),
    Target(
        "add_layer_norm forward, of the bandwidth of a copy", "rowwise", (r"^add_layer_norm forward, ",), "of_copy", 0.9, "",
    ),
    Target(
        "linear products without activation, bfloat16, T from 4,096, against F.linear", "linear",
        (r", bfloat16 ", _TOKENS_4K, _PLAIN_ONE), "ratio", 0.97,
    ),
    Target(
        "linear with bias and GELU, bfloat16, T from 4,096, against F.linear and F.gelu", "linear",
        (r"GELU, bfloat16 ", _TOKENS_4K, r"F\.gelu\(F\.linear\)"), "ratio", 1.1,
    ),
    Target(
        "BERT-base forward, bfloat16, ragged, against transformers in float16, padded", "encoder",
        (r"^encoder forward, bfloat16 ", r"BERT-base, real", r"SDPA, float16$"), "ratio", 3.0,
    ),
    Target(
        "BERT-base forward, bfloat16, ragged, against torch's own ops, packed", "encoder",
        (r"^encoder forward, bfloat16 ", r"BERT-base, real", r"packed, torch"), "ratio", 1.2,
    ),
    Target(
        "BERT-base forward, bfloat16, 128 tokens each", "encoder",
        (r"^encoder forward, bfloat16 ", r"BERT-base, 128\b"), "tokens_per_second", 2.5e6, "tokens/s",
    ),
    Target(
        "BERT-base forward, bfloat16, 512 tokens each", "encoder",
        (r"^encoder forward, bfloat16 ", r"BERT-base, 512\b"), "tokens_per_second", 2.2e6, "tokens/s",
    ),
    Target(
        "MiniLM, ragged texts in, vectors out, against sentence-transformers in float16", "texts",
        (r"MiniLM", _HALF_ST), "ratio", 4.0,
    ),
    Target(
        "BERT-base, ragged texts in, vectors out, against sentence-transformers in float16", "texts",
        (r"BERT-base", _HALF_ST), "ratio", 4.0,
    ),
    Target(
        "BERT-large training step, bfloat16, ragged", "training",
        (r"^training step, bfloat16 autocast ", r"BERT-large, real", r"SDPA, padded$"), "tokens_per_second", 2e5, "tokens/s",
    ),
    Target(
        "BERT-large training step, bfloat16, ragged, against transformers, padded", "training",
        (r"^training step, bfloat16 autocast ", r"BERT-large, real", r"SDPA, padded$"), "ratio", 2.5,
    ),
    Target(
        "one sentence, MiniLM, with a graph replayed", "latency",
        (r"CUDA graphs", r"MiniLM, 1 sentence \|"), "ours_ms", 0.35, "ms", at_most=True,
    ),
    Target(
        "batch_invariant=True, times the time without", "batch_invariance",
        (r"^batch_invariant",), "cost", 1.1, at_most=True,
    ),
)  # fmt: skip
