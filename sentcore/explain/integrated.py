"""The parts that tokens have in a feature by integrated gradients, for every model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from sentcore.explain.passes import Prepared, watching
from sentcore.packed import PackedBatch
from sentcore.sentence_encoder import SentenceEncoder

TOLERANCE = 2e-3  # of the feature's length, that the parts may be away from adding up
STEPS = (40, 80, 160)
BATCH_TOKENS = 4096
_SHIFT = 0.003  # of the way from baseline to text; central differences err by its square, float32 by 1e-7 over it


def integrated_parts(
    model: SentenceEncoder, text: Prepared, advance: Callable[[int, int], None]
) -> tuple[torch.Tensor, torch.Tensor]:
    """([T, E], [E]) float64 on the CPU: of every token, and of the baseline.

    Args:
        advance: told of (copies of the text, their tokens) that are computed.
    """
    encoder = model.model.encoder
    batch = text.batch
    start = encoder.embeddings(replace(batch, token_ids=_baseline(model, batch)))
    way = encoder.embeddings(batch) - start  # [T, H]
    moved = way.abs().amax(dim=1).nonzero().flatten()  # tokens that differ from the baseline's
    ends = _features(model, text, torch.stack((start, start + way)), advance)
    goal, rest = ends[1] - ends[0], ends[0]
    parts = torch.zeros(batch.num_tokens, len(rest), dtype=torch.float64)
    for steps in STEPS if len(moved) else ():
        parts = _integral(model, text, start, way, moved, steps, advance)
        if (parts.sum(dim=0) - goal).norm() <= TOLERANCE * ends[1].norm():
            break
    return parts, rest


def _integral(model, text, start, way, moved, steps, advance) -> torch.Tensor:
    """[T, E] by Gauss and Legendre's rule with so many steps."""
    nodes, weights = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(steps))
    place, token = torch.cartesian_prod(torch.arange(steps), moved.cpu()).unbind(1)  # every step with every token
    slopes = []
    many = max(1, BATCH_TOKENS // (2 * len(way)))
    for some, which in zip(place.split(many), token.to(way.device).split(many), strict=True):
        along = ((nodes[some] + 1) / 2).to(way)
        row = torch.arange(len(which), device=way.device)
        states = (start + along[:, None, None] * way).repeat(2, 1, 1)  # [2m, T, H]
        states[row, which] += _SHIFT * way[which]
        states[row + len(which), which] -= _SHIFT * way[which]
        ahead, behind = _features(model, text, states, advance).chunk(2)
        slopes.append((ahead - behind) / (2 * _SHIFT))
    parts = torch.zeros(len(way), slopes[0].shape[1], dtype=torch.float64)
    return parts.index_add_(0, token, torch.cat(slopes) * weights[place, None] / 2)


def _baseline(model: SentenceEncoder, batch: PackedBatch) -> torch.Tensor:
    """[T] ids: padding for all but the special tokens around the text."""
    before, behind = model.tokenizer.special_tokens()
    ids = batch.token_ids.clone()
    ids[before : max(before, len(ids) - behind)] = model.model.encoder.config.pad_token_id
    return ids


def _features(model, text, states: torch.Tensor, advance) -> torch.Tensor:
    """[B, T, H] of B copies of the text behind the embeddings -> [B, E] float64 on the CPU, before a Normalize at the end."""
    count, length, _ = states.shape
    batch = text.batch
    copies = PackedBatch(
        token_ids=batch.token_ids.repeat(count),
        position_ids=batch.position_ids.repeat(count),
        token_type_ids=batch.token_type_ids.repeat(count),
        cu_seqlens=torch.arange(count + 1, dtype=torch.int32, device=states.device) * length,
        max_seqlen=length,
    )
    with _embedded(model, states.flatten(0, 1)), watching(model) as seen:
        features = model.model(copies, text.prompt_length).sentence_embedding
    advance(count, copies.num_tokens)
    return (features if seen.before_normalize is None else seen.before_normalize).double().cpu()


@contextmanager
def _embedded(model: SentenceEncoder, states: torch.Tensor) -> Iterator[None]:
    """The encoder goes on from these states [T, H] in the place of its embeddings'."""
    handle = model.model.encoder.embeddings.register_forward_hook(lambda *_: states)
    try:
        yield
    finally:
        handle.remove()
