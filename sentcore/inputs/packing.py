"""Chosen sentences of a ragged token store become one packed batch on the device."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from sentcore._extension import extension
from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.packed import PackedBatch, TokenizedTexts, flat_parts, flat_words

MAX_TOKENS = 2**31 - 1  # cu_seqlens is int32


def pack_batch(
    tokens: TokenizedTexts, indices: np.ndarray, *, device: torch.device | str, uncounted_id: int | None = None
) -> PackedBatch:
    """Gathers b sentences, in the order given, into one batch without padding.

    Args:
        tokens: B tokenized texts; token_ids [T] int32, offsets [B+1] int64, token_type_ids [T] int32 or None.
        indices: [b] int64, which texts, each from 0 to B - 1; a text may come twice.
        device: where the batch goes. For a CUDA device the copy runs beside the host's work.
        uncounted_id: EncoderConfig.uncounted_id: an id at position -1 that the tokens behind it do not count.

    Returns:
        PackedBatch: token_ids, position_ids (0 to length - 1 in each sentence) and token_type_ids [t] int64, cu_seqlens
        [b+1] int32 and max_seqlen, where t is the sum of the chosen lengths.

    Raises:
        ArgumentTypeError, ArgumentValueError: by argument, value found and what is accepted.
    """
    return _pack(tokens, indices, torch.device(device), extension(), uncounted_id)


def pack_batch_numpy(
    tokens: TokenizedTexts, indices: np.ndarray, *, device: torch.device | str, uncounted_id: int | None = None
) -> PackedBatch:
    """`pack_batch` in NumPy: the definition, and what runs without a build."""
    return _pack(tokens, indices, torch.device(device), None, uncounted_id)


def pack_flat(
    tokens: TokenizedTexts,
    indices: np.ndarray,
    room: Callable[[int], torch.Tensor],
    uncounted_id: int | None = None,
) -> PackedBatch:
    """`pack_batch` into one piece of memory on the host, so that it goes to a device in one copy.

    Args:
        room: asked once for at least so many int64 words, [words] on the CPU; `PackedBatch.from_flat` reads their copy.
    """
    return _pack_flat(tokens, indices, room, extension(), uncounted_id)


def _pack(
    tokens: TokenizedTexts, indices: np.ndarray, device: torch.device, native, uncounted_id: int | None
) -> PackedBatch:
    # Page-locked memory lets the copy to the GPU run beside the host; torch keeps it until that copy is done.
    pinned = device.type == "cuda"
    pieces = []

    def room(words: int) -> torch.Tensor:
        pieces.append(torch.empty(words, dtype=torch.int64, pin_memory=pinned))
        return pieces[0]

    batch = _pack_flat(tokens, indices, room, native, uncounted_id)
    if device.type == "cpu":
        return batch
    flat = pieces[0].to(device, non_blocking=pinned)
    return PackedBatch.from_flat(flat, batch.num_tokens, batch.num_sentences, batch.max_seqlen)


def _pack_flat(
    tokens: TokenizedTexts, indices: np.ndarray, room: Callable[[int], torch.Tensor], native, uncounted_id: int | None
) -> PackedBatch:
    _check_arguments(tokens, indices)
    begins, ends = tokens.offsets[indices], tokens.offsets[indices + 1]
    total = int((ends - begins).sum())
    _check_selection(tokens, indices, begins, ends, total)
    flat = room(flat_words(total, len(indices)))
    rows, cu_seqlens = (part.numpy() for part in flat_parts(flat, total, len(indices)))
    if native is not None:
        arrays = (tokens.token_ids, tokens.offsets, tokens.token_type_ids, indices)
        arrays = tuple(a if a is None else np.ascontiguousarray(a) for a in arrays)
        max_seqlen = native.pack_batch(*arrays, rows, cu_seqlens)
    else:
        max_seqlen = _fill(tokens, begins, ends, rows, cu_seqlens)
    if uncounted_id is not None:
        _leave_uncounted(rows, cu_seqlens, uncounted_id)
    return PackedBatch.from_flat(flat, total, len(indices), max_seqlen)


def _leave_uncounted(rows: np.ndarray, cu_seqlens: np.ndarray, uncounted_id: int) -> None:
    """Positions of rows [3, t] where an id does not count: a text that holds it is rare, so one look is all it costs."""
    found = rows[0] == uncounted_id
    if not found.any():
        return
    before = np.concatenate(([0], np.cumsum(found)))  # [t+1], such tokens before each
    lengths = np.diff(cu_seqlens)
    rows[1] -= before[:-1] - np.repeat(before[cu_seqlens[:-1]], lengths)
    rows[1][found] = -1


def _fill(
    tokens: TokenizedTexts,
    begins: np.ndarray,
    ends: np.ndarray,
    rows: np.ndarray,
    cu_seqlens: np.ndarray,
) -> int:
    """Writes rows [3, t] int64 and cu_seqlens [b+1] int32; returns the longest length."""
    lengths = ends - begins
    cu_seqlens[0] = 0
    np.cumsum(lengths, out=cu_seqlens[1:])
    rows[1] = np.arange(rows.shape[1]) - np.repeat(cu_seqlens[:-1], lengths)
    source = rows[1] + np.repeat(begins, lengths)  # [t], each token's place in the store
    rows[0] = tokens.token_ids[source]
    rows[2] = 0 if tokens.token_type_ids is None else tokens.token_type_ids[source]
    return int(lengths.max(initial=0))


def _check_arguments(tokens: TokenizedTexts, indices: np.ndarray) -> None:
    if not isinstance(tokens, TokenizedTexts):
        raise ArgumentTypeError(f"tokens is {type(tokens).__name__}; accepted is TokenizedTexts")
    arrays = {
        "tokens.token_ids": (tokens.token_ids, np.int32),
        "tokens.offsets": (tokens.offsets, np.int64),
        "indices": (indices, np.int64),
    }
    if tokens.token_type_ids is not None:
        arrays["tokens.token_type_ids"] = (tokens.token_type_ids, np.int32)
    for name, (array, dtype) in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype != dtype:
            found = f"a NumPy array of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
            raise ArgumentTypeError(f"{name} is {found}; accepted is a NumPy array of {np.dtype(dtype).name}")
        if array.ndim != 1:
            raise ArgumentValueError(f"{name} has shape {array.shape}; accepted is 1 dimension")
    if tokens.offsets.size < 1:
        raise ArgumentValueError("tokens.offsets has no element; accepted are B + 1, the first one 0")
    if tokens.token_type_ids is not None and tokens.token_type_ids.shape != tokens.token_ids.shape:
        raise ArgumentValueError(
            f"tokens.token_type_ids has {tokens.token_type_ids.size} elements; accepted are as many as "
            f"tokens.token_ids, {tokens.token_ids.size}"
        )
    outside = np.flatnonzero((indices < 0) | (indices >= len(tokens)))
    if outside.size:
        raise ArgumentValueError(
            f"indices[{outside[0]}] is {indices[outside[0]]}; accepted are 0 to {len(tokens) - 1}, "
            f"one of the {len(tokens)} tokenized texts"
        )


def _check_selection(
    tokens: TokenizedTexts, indices: np.ndarray, begins: np.ndarray, ends: np.ndarray, total: int
) -> None:
    """Only the chosen texts are looked at: a batch must not cost as much as the whole store."""
    bad = np.flatnonzero((begins < 0) | (ends < begins) | (ends > len(tokens.token_ids)))
    if bad.size:
        raise ArgumentValueError(
            f"tokens.offsets places text {indices[bad[0]]} at {begins[bad[0]]} to {ends[bad[0]]}; accepted are offsets "
            f"that never decrease, from 0 to the {len(tokens.token_ids)} token ids"
        )
    if total > MAX_TOKENS:
        raise ArgumentValueError(
            f"indices select {total} tokens, more than {MAX_TOKENS}, the most that one batch can hold; give fewer sentences"
        )
