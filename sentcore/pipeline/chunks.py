"""Features of texts that are longer than the model reads at once, from the features of their windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F

from sentcore.inputs.chunks import ChunkedTexts
from sentcore.packed import TokenizedTexts
from sentcore.pipeline.window import WindowOutputs

WINDOWS = 16_384  # of which features are held at once; a single text may have more

Advance = Callable[[int, int], None]
Finish = Callable[[torch.Tensor], torch.Tensor]

_NAME = "sentence_embedding"  # the one output that windows are pooled to


def encode_chunked(
    chunked: ChunkedTexts,
    mode: str,
    normalize: bool,
    run: Callable[[TokenizedTexts, Finish, Advance], WindowOutputs],
    finish: Finish,
    advance: Advance,
) -> WindowOutputs:
    """Sentence features [B, E] float32 of texts, each long one pooled from its windows.

    Args:
        chunked: the texts and the windows of the long ones.
        mode: "mean", every window weighted by the tokens it adds, or "max", the largest of each column.
        normalize: scale a pooled feature to length 1, as the model's last stage does.
        run: computes texts that fit, as `run_window`, the rows finished by its second argument.
        finish: [b, E] -> [b, E'], what is done to features after the model, truncation for one; to windows only once pooled.
        advance: told of (texts, tokens) that are done.
    """
    fit = np.setdiff1d(np.arange(len(chunked)), chunked.long)
    rows = run(_select(chunked.whole, fit), finish, advance)[_NAME] if len(fit) else None
    out = None
    for first, last in _groups(chunked.offsets):
        begin, end = chunked.offsets[first], chunked.offsets[last]
        windows = _select(chunked.windows, np.arange(begin, end))
        features = run(windows, lambda rows: rows, lambda _, tokens: advance(0, tokens))[_NAME]
        added = torch.from_numpy(chunked.added[begin:end])
        pooled = torch.stack(
            [
                _pooled(features[a:b], added[a:b], mode)
                for a, b in pairwise((chunked.offsets[first : last + 1] - begin).tolist())
            ]
        )
        pooled = finish(F.normalize(pooled, p=2.0, dim=1) if normalize else pooled)
        if out is None:
            out = torch.empty((len(chunked), pooled.shape[1]))
            if rows is not None:
                out[torch.from_numpy(fit)] = rows
        out[torch.from_numpy(chunked.long[first:last])] = pooled
        advance(last - first, 0)
    return {_NAME: out}


def _pooled(features: torch.Tensor, added: torch.Tensor, mode: str) -> torch.Tensor:
    """[W, E] and [W] -> [E]."""
    if mode == "max":
        return features.amax(dim=0)
    weights = added.double() / added.sum()
    return (features.double() * weights[:, None]).sum(dim=0).float()


def _groups(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """(first, last) of consecutive texts of at most WINDOWS windows together, or of one text alone."""
    first = 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + WINDOWS, side="right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last


def _select(tokens: TokenizedTexts, indices: np.ndarray) -> TokenizedTexts:
    """Some of the texts, in the order given."""
    lengths = tokens.lengths[indices]
    offsets = np.zeros(len(indices) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    source = np.arange(offsets[-1]) + np.repeat(tokens.offsets[indices] - offsets[:-1], lengths)
    types = tokens.token_type_ids
    return TokenizedTexts(
        token_ids=tokens.token_ids[source],
        offsets=offsets,
        token_type_ids=None if types is None else types[source],
        truncated=tokens.truncated[indices],
    )
