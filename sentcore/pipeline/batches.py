"""Texts to features: tokenize a window of texts, plan batches by tokens, pack, compute, put the rows back in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice, pairwise
from typing import TypeVar

import numpy as np
import torch

from sentcore.config import EncoderConfig
from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.inputs.packing import pack_batch
from sentcore.inputs.planning import plan_batches
from sentcore.inputs.texts import check_texts
from sentcore.packed import PackedBatch, TokenizedTexts
from sentcore.pipeline.ending import at_work, pause
from sentcore.pipeline.memory import FREED, TokenBudget, free_cached, is_out_of_memory

Result = TypeVar("Result")

WINDOW = 32_768  # texts tokenized at once; what is held of a corpus beside its results
FIRST_WINDOW = 1024  # of these for a GPU, which would wait for all of a large first one
CPU_BATCH_TOKENS = (4096, 16_384)  # fewest and most; between them what computes CPU_BATCH_WORK
CPU_BATCH_WORK = 2**37  # multiply-adds of the linear layers: half a second to a few, so that progress is seen


def default_batch_tokens(device: torch.device, config: EncoderConfig) -> int:
    """Tokens in a batch: on a CPU more for small models, where threads would often wait for each other; elsewhere what fills
    the machine."""
    if device.type == "cpu":
        of_token = (
            config.hidden_size * (4 * config.hidden_size + 2 * config.intermediate_size) * config.num_hidden_layers
        )
        fewest, most = CPU_BATCH_TOKENS
        return min(most, max(fewest, CPU_BATCH_WORK // max(1, of_token)))
    return 32_768 if device.type == "cuda" else 16_384


def check_batch_tokens(batch_tokens: int | None, device: torch.device, config: EncoderConfig) -> int:
    """The token budget of one batch, or an error that says what is accepted."""
    if batch_tokens is None:
        return default_batch_tokens(device, config)
    if isinstance(batch_tokens, bool) or not isinstance(batch_tokens, int):
        raise ArgumentTypeError(
            f"batch_tokens is {batch_tokens!r} of type {type(batch_tokens).__name__}; accepted: an integer, or None for "
            f"the default of {default_batch_tokens(device, config)}"
        )
    if batch_tokens < 1:
        raise ArgumentValueError(f"batch_tokens is {batch_tokens}; accepted: at least 1, the tokens computed at once")
    return batch_tokens


def windows(texts: Iterable[str], size: int = WINDOW, first: int | None = None) -> Iterator[list[str]]:
    """Lists of at most `size` consecutive texts; with `first` that many, then twice as many at a time until it is `size`."""
    iterator = iter(texts)
    now = size if first is None else min(first, size)
    while window := list(islice(iterator, now)):
        yield window
        now = min(size, 2 * now)


def first_window(device: torch.device) -> int | None:
    """Texts in the first window of many: few on a GPU, which has nothing to do before they are tokenized.

    On a CPU the tokenizer takes the cores that would compute, so nothing is won by it there.
    """
    return FIRST_WINDOW if device.type == "cuda" else None


def checked_lists(lists: Iterable[list[str]]) -> Iterator[list[str]]:
    """The same of what is checked to be texts; a bad one is named by its place in all of them."""
    first = 0
    for texts in lists:
        yield check_texts(texts, first)[0]
        first += len(texts)


def run_batches(
    tokens: TokenizedTexts,
    budget: TokenBudget,
    device: torch.device,
    compute: Callable[[PackedBatch], Result],
    uncounted_id: int | None = None,
) -> Iterator[tuple[np.ndarray, PackedBatch, Result]]:
    """(indices [b] int64 into `tokens`, the batch, what `compute` made of it) for every planned batch.

    Where a batch of several sentences runs out of memory, it and what is left are planned again under half of its tokens;
    `budget` grows back as batches fit. A sentence that does not fit alone raises what ran out.
    """
    lengths = tokens.lengths
    left = np.arange(len(tokens))
    while len(left):
        order, starts = plan_batches(lengths[left], budget.now)
        order = left[order]
        left = order[:0]
        for first, last in pairwise(starts):
            pause()
            indices = order[first:last]
            try:
                with at_work():
                    batch = pack_batch(tokens, indices, device=device, uncounted_id=uncounted_id)
                    result = compute(batch)
            except Exception as error:
                if len(indices) == 1 or not is_out_of_memory(error):
                    raise
                result = None
            # Outside the handler: what failed is let go with its frames.
            if result is None:
                budget.failed(int(lengths[indices].sum()))
                free_cached(device)
                left = order[first:]
                break
            yield indices, batch, result
            FREED.computed(batch.num_tokens, device)
            if budget.fitted():
                left = order[last:]
                break
