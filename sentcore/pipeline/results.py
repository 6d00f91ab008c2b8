"""What a computed batch gives back sentence by sentence, and the report of values that are no numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch

from sentcore.model import Features
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
