"""Token features to sentence features, over the segments of a packed batch, summed in float32."""

from __future__ import annotations

import torch
from torch import nn

from sentcore.errors import ArgumentValueError
from sentcore.outputs.specs import POOLING_MODES, PoolingSpec
from sentcore.packed import PackedBatch


class Pooling(nn.Module):
    """sentence-transformers' six pooling modes and their concatenations (Reimers & Gurevych 2019)."""

    def __init__(self, spec: PoolingSpec) -> None:
        super().__init__()
        unknown = [mode for mode in spec.modes if mode not in POOLING_MODES]
        if unknown or not spec.modes:
            raise ArgumentValueError(
                f"pooling modes are {list(spec.modes)}; accepted: one or more of {', '.join(POOLING_MODES)}"
            )
        self.spec = spec

    def forward(self, x: torch.Tensor, batch: PackedBatch, prompt_length: int = 0) -> torch.Tensor:
        """[T, H] -> [B, H · number of modes] float32 (float64 for float64).

        Args:
            x: [T, H] token features.
            batch: the packed batch they belong to.
            prompt_length: tokens at the start of every sentence that are the prompt's, left out when the spec says so.
        """
        offsets, positions = batch.cu_seqlens.long(), None
        if not self.spec.include_prompt and prompt_length > 0:
            x, offsets, positions = _without_prompt(x, offsets, prompt_length)
        if x.dtype != torch.float64:
            x = x.float()
        lengths = offsets.diff()
        pooled = [_POOL[mode](x, offsets, lengths, positions) for mode in self.spec.modes]
        return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=1)


def _without_prompt(x: torch.Tensor, offsets: torch.Tensor, prompt_length: int):
    """The tokens behind the prompt: x [T', H], offsets [B+1], and their 0-based places in the sentence [T']."""
    lengths = offsets.diff()
    places = torch.arange(x.shape[0], device=x.device)
    places = places - torch.repeat_interleave(offsets[:-1], lengths, output_size=x.shape[0])
    kept = places >= prompt_length
    shorter = (lengths - prompt_length).clamp(min=0)
    return x[kept], torch.cat((offsets[:1], shorter.cumsum(0))), places[kept]


def _sum(x: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    # A segment sum has one order of addition whatever else is in the batch, and no atomics.
    return torch.segment_reduce(x, "sum", offsets=offsets, axis=0, initial=0.0)


def _mean(x, offsets, lengths, positions):
    return _sum(x, offsets) / lengths.clamp(min=1).to(x.dtype)[:, None]


def _mean_sqrt_len(x, offsets, lengths, positions):
    return _sum(x, offsets) / lengths.clamp(min=1).to(x.dtype).sqrt()[:, None]


def _weighted_mean(x, offsets, lengths, positions):
    if positions is None:
        starts = torch.repeat_interleave(offsets[:-1], lengths, output_size=x.shape[0])
        positions = torch.arange(x.shape[0], device=x.device) - starts
    weights = (positions + 1).to(x.dtype)[:, None]
    return _sum(x * weights, offsets) / _sum(weights, offsets).clamp(min=1e-9)


def _max(x, offsets, lengths, positions):
    return torch.segment_reduce(x, "max", offsets=offsets, axis=0)


def _first(x, offsets, lengths, positions):
    return x[offsets[:-1].clamp(max=max(x.shape[0] - 1, 0))]


def _last(x, offsets, lengths, positions):
    return x[(offsets[1:] - 1).clamp(min=0)]


_POOL = {
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt_len,
    "weightedmean": _weighted_mean,
    "max": _max,
    "cls": _first,
    "lasttoken": _last,
}
