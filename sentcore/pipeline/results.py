"""What a computed batch gives back sentence by sentence, and the report of values that are no numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch

from sentcore.model import Features
from sentcore.outputs import quantize
from sentcore.packed import PackedBatch


def items_of(batch: PackedBatch, features: Features, finish: Callable, output_value: str | None) -> Iterator:
    """One entry a sentence: its token features [tokens, H], or a dict of everything."""
    starts = batch.cu_seqlens.tolist()
    for row, (first, last) in enumerate(pairwise(starts)):
        tokens = features.token_embeddings[first:last].clone()
        if output_value == "token_embeddings":
            yield tokens
            continue
        yield {
            "input_ids": batch.token_ids[first:last].clone(),
            "attention_mask": torch.ones_like(batch.token_ids[first:last]),
            "token_embeddings": tokens,
            "sentence_embedding": finish(features.sentence_embedding[row : row + 1])[0],
        }


def hand_over(name: str | None, parts: list, precision: str, ranges: np.ndarray | None, target: str | torch.device):
    """The parts of one output put together, as the caller of `encode` gets them.

    Args:
        name: the output value.
        parts: of each window; rows [B, E] of sentence features, else lists of one item a text.
        precision, ranges: of sentence features; without ranges those of all rows are taken.
        target: "numpy", "list" (of tensors), or the device of a tensor; for sentence features and ColBERT's rows.
    """
    if name == "sentence_embedding":
        rows = torch.cat(parts)
        if precision != "float32" and rows.is_floating_point():  # else they left the device in it
            rows = torch.from_numpy(quantize(rows.numpy(), precision, ranges))
        return list(rows) if target == "list" else _converted(rows, target)
    items = [item for part in parts for item in part]
    if name == "sparse":
        report_non_finite(torch.tensor([[sum(row.values())] for row in items]), stacklevel=4)
    elif name == "colbert":
        report_non_finite(torch.tensor([[item.sum()] for item in items]), stacklevel=4)
        # Outside inference mode a copy is a tensor that autograd may take.
        return [_converted(item.clone(), target) for item in items]
    return items


def _converted(rows: torch.Tensor, target: str | torch.device) -> np.ndarray | torch.Tensor:
    if isinstance(target, torch.device):
        return rows.to(target)
    return rows.numpy() if target == "numpy" else rows


def non_finite_rows(rows: torch.Tensor) -> list[int]:
    """Which of the rows [B, E] hold NaN or infinity."""
    if not rows.numel() or math.isfinite(rows.sum()):  # a sum of finite values that overflows is looked at below
        return []
    return (~torch.isfinite(rows).all(dim=1)).nonzero().flatten().tolist()


def report_non_finite(rows: torch.Tensor, stacklevel: int = 3) -> None:
    """Warns of rows [B, E] that hold NaN or infinity."""
    bad = non_finite_rows(rows)
    if bad:
        shown = ", ".join(map(str, bad[:5]))
        warnings.warn(
            f"{len(bad)} of {len(rows)} features are NaN or infinite (sentences {shown}"
            f"{', ...' if len(bad) > 5 else ''}); use dtype='float32' for these",
            RuntimeWarning,
            stacklevel=stacklevel,
        )
