"""segment_pooling and segment_pooling_quantized in plain PyTorch: the definitions.

Sentence-BERT: Reimers & Gurevych 2019, https://arxiv.org/abs/1908.10084; the modes are sentence-transformers'.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
EPS = 1e-12  # the least length a row is divided by
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")


def segment_pooling(
    x: torch.Tensor,  # [T, H]
    cu_seqlens: torch.Tensor,  # [B+1] int32
    *,
    mode: str = "mean",
    skip: int = 0,
    normalize: bool = False,
) -> torch.Tensor:  # [B, H] float32 (float64)
    """Pooled rows, differentiable by torch's own autograd."""
    pooled = _pool(x, cu_seqlens, mode, skip)
    return F.normalize(pooled, dim=1, eps=EPS) if normalize else pooled


def segment_pooling_backward(
    grad_out: torch.Tensor,  # [B, H] float32 (float64)
    x: torch.Tensor,  # [T, H]
    cu_seqlens: torch.Tensor,  # [B+1] int32
    mode: str,
    skip: int,
    normalize: bool,
) -> torch.Tensor:  # [T, H]
    """The explicit backward: grad_x in x's dtype, zero where a token was left out."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    grad = grad_out.to(wide)
    if normalize or mode == "max":
        pooled = _pool(x, cu_seqlens, mode, skip)
    if normalize:
        norm = pooled.norm(dim=1, keepdim=True)
        unit = pooled / norm.clamp(min=EPS)
        along = torch.where(norm > EPS, (grad * unit).sum(1, keepdim=True), 0.0)
        grad = (grad - unit * along) / norm.clamp(min=EPS)
    sentence, place = _places(x.shape[0], cu_seqlens)
    weight = _weights(mode, place, cu_seqlens.diff()[sentence], skip)
    if mode == "max":
        tokens = torch.arange(x.shape[0], device=x.device)[:, None].expand_as(x)
        highest = (x.to(wide) == pooled[sentence]) & (weight > 0)[:, None]
        first = torch.full_like(pooled, x.shape[0], dtype=torch.int64)
        candidates = torch.where(highest, tokens, x.shape[0])
        first = first.scatter_reduce(0, sentence[:, None].expand_as(x), candidates, "amin")
        weight = (tokens == first[sentence]).to(wide)
    else:
        weight = weight.to(wide)[:, None]
    return ((grad * _scales(mode, cu_seqlens, skip, wide))[sentence] * weight).to(x.dtype)


def segment_pooling_quantized(
    x: torch.Tensor,  # [T, H]
    cu_seqlens: torch.Tensor,  # [B+1] int32
    *,
    mode: str = "mean",
    skip: int = 0,
    normalize_before: bool = False,
    width: int | None = None,
    normalize: bool = False,
    precision: str = "float32",
    ranges: torch.Tensor | None = None,  # [2, W] float32
) -> tuple[torch.Tensor, torch.Tensor]:  # [B, W] or [B, ceil(W / 8)] in `precision`, [B] bool
    """Pooled rows scaled, cut, scaled and quantized; and which of them held finite numbers alone before the last step."""
    pooled = _pool(x, cu_seqlens, mode, skip)
    return quantized(pooled, normalize_before, width or x.shape[1], normalize, precision, ranges)


def quantized(
    pooled: torch.Tensor,  # [B, H] float32 (float64)
    normalize_before: bool,
    width: int,
    normalize: bool,
    precision: str,
    ranges: torch.Tensor | None,  # [2, W] float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """What follows the pooling."""
    rows = F.normalize(pooled, dim=1, eps=EPS) if normalize_before else pooled
    rows = rows[:, :width]
    rows = (F.normalize(rows, dim=1, eps=EPS) if normalize else rows).float()
    finite = rows.isfinite().all(dim=1)
    if precision == "float32":
        return rows.contiguous(), finite
    if precision in ("int8", "uint8"):
        steps = (ranges[1] - ranges[0]) / 255
        steps = torch.where(steps == 0, 1.0, steps)  # a constant column has one level
        levels = ((rows - ranges[0]) / steps).floor().clamp(0, 255)
        if precision == "uint8":
            return levels.nan_to_num(nan=0.0).to(torch.uint8), finite
        return (levels - 128).nan_to_num(nan=0.0).to(torch.int8), finite
    bits = F.pad((rows > 0).to(torch.uint8), (0, -width % 8)).unflatten(1, (-1, 8))
    places = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=rows.device)
    packed = (bits * places).sum(2, dtype=torch.uint8)
    return packed if precision == "ubinary" else (packed.to(torch.int16) - 128).to(torch.int8), finite


def _pool(x, cu_seqlens, mode, skip):
    wide = x.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    offsets = cu_seqlens.long()
    some = (offsets.diff() > skip)[:, None]  # sentences with a token that counts
    if x.shape[0] == 0:
        return wide.sum() * torch.zeros(some.shape[0], x.shape[1], dtype=wide.dtype, device=x.device)
    if mode in ("cls", "lasttoken"):
        rows = offsets[:-1] + skip if mode == "cls" else offsets[1:] - 1
        return torch.where(some, wide[rows.clamp(0, x.shape[0] - 1)], 0.0)
    if skip or mode == "weightedmean":
        sentence, place = _places(x.shape[0], cu_seqlens)
        weight = _weights(mode, place, offsets.diff()[sentence], skip)[:, None]
        wide = torch.where(weight > 0, wide * weight, -torch.inf if mode == "max" else 0.0)
    if mode == "max":
        return torch.where(some, torch.segment_reduce(wide, "max", offsets=offsets, axis=0), 0.0)
    # A segment sum has one order of addition whatever else is in the batch, and no atomics.
    sums = torch.segment_reduce(wide, "sum", offsets=offsets, axis=0, initial=0.0)
    return sums * _scales(mode, cu_seqlens, skip, wide.dtype)


def _places(tokens, cu_seqlens):
    """Of every token its sentence [T] and its place in it [T]."""
    offsets = cu_seqlens.long()
    sentences = torch.arange(len(offsets) - 1, device=cu_seqlens.device)
    sentence = torch.repeat_interleave(sentences, offsets.diff(), output_size=tokens)
    return sentence, torch.arange(tokens, device=cu_seqlens.device) - offsets[sentence]


def _weights(mode, place, length, skip):
    """What each token's row is multiplied by in its sentence's sum, [T] int64."""
    kept = place >= skip
    if mode == "cls":
        return (place == skip).long()
    if mode == "lasttoken":
        return ((place == length - 1) & kept).long()
    return torch.where(kept, place + 1 if mode == "weightedmean" else 1, 0)


def _scales(mode, cu_seqlens, skip, dtype):
    """What each sentence's sum is multiplied by, [B, 1]."""
    length = cu_seqlens.diff().to(dtype)
    count = (length - skip).clamp(min=1)
    if mode == "mean":
        scale = 1.0 / count
    elif mode == "mean_sqrt_len_tokens":
        scale = count.rsqrt()
    elif mode == "weightedmean":
        left_out = length.clamp(max=skip)
        scale = 2.0 / ((length - left_out) * (length + left_out + 1)).clamp(min=2)
    else:
        scale = torch.ones_like(length)
    return scale[:, None]
