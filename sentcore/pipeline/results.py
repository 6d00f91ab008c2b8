"""What a computed batch gives back sentence by sentence, and the report of values that are no numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise

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


def hand_over_rows(rows: torch.Tensor, precision: str, target: str | torch.device):
    """Rows [B, E] in `precision` and in the form asked for: "numpy", "list" (of tensors), or a tensor on a device."""
    report_non_finite(rows)
    if precision != "float32":
        rows = torch.from_numpy(quantize(rows.numpy(), precision))
    return _converted(rows, target)


def hand_over_items(name: str | None, items: list, target: str | torch.device) -> list:
    """One item a text; ColBERT's rows in the form asked for, the others as they are."""
    if name == "sparse":
        report_non_finite(torch.tensor([[math.fsum(row.values())] for row in items]))
    elif name == "colbert":
        report_non_finite(torch.tensor([[item.sum()] for item in items]))
        # Outside inference mode a copy is a tensor that autograd may take.
        return [_converted(item.clone(), target, several=False) for item in items]
    return items


def _converted(rows: torch.Tensor, target: str | torch.device, several: bool = True):
    if target == "numpy":
        return rows.numpy()
    if target == "list":
        return list(rows) if several else rows
    return rows.to(target)


def report_non_finite(rows: torch.Tensor, first: int = 0) -> None:
    """Warns of rows [B, E] that hold NaN or infinity; `first` is the first row's place in the whole input."""
    if not rows.numel() or math.isfinite(rows.sum()):  # a sum of finite values that overflows is looked at below
        return
    bad = (~torch.isfinite(rows).all(dim=1)).nonzero().flatten().tolist()
    if bad:
        shown = ", ".join(str(first + index) for index in bad[:5])
        warnings.warn(
            f"{len(bad)} of {len(rows)} features are NaN or infinite (sentences {shown}"
            f"{', ...' if len(bad) > 5 else ''}); use dtype='float32' for these",
            RuntimeWarning,
            stacklevel=3,
        )
