"""segment_pooling for torch: schema, shapes, plain kernel, autograd; segment_pooling_quantized, which has no gradient.

`norm` is each row's length before it was scaled, which a kernel's backward starts from.
"""

from __future__ import annotations

import torch

from sentcore.ops.register import autograd, define
from sentcore.ops.segment_pooling import reference


def _wide(x: torch.Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _forward(x, cu_seqlens, mode, skip, normalize):
    out = reference.segment_pooling(x, cu_seqlens, mode=mode, skip=skip)
    norm = out.norm(dim=1) if normalize else out.new_empty(0)
    return out / norm.clamp(min=reference.EPS)[:, None] if normalize else out, norm


def _forward_fake(x, cu_seqlens, mode, skip, normalize):
    sentences = cu_seqlens.shape[0] - 1
    return x.new_empty((sentences, x.shape[1]), dtype=_wide(x)), x.new_empty(
        sentences if normalize else 0, dtype=_wide(x)
    )


def _backward(grad_out, x, cu_seqlens, out, norm, mode, skip, normalize):
    return reference.segment_pooling_backward(grad_out, x, cu_seqlens, mode, skip, normalize)


def _backward_fake(grad_out, x, cu_seqlens, out, norm, mode, skip, normalize):
    return x.new_empty(x.shape)


def _setup_context(ctx, inputs, output):
    x, cu_seqlens, *ctx.options = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(x, cu_seqlens, *output)


def _autograd(ctx, grad_out, grad_norm):
    x, cu_seqlens, out, norm = ctx.saved_tensors
    grad = torch.ops.sentcore.segment_pooling_backward.default(grad_out, x, cu_seqlens, out, norm, *ctx.options)
    return grad, None, None, None, None


def _quantized(x, cu_seqlens, mode, skip, normalize_before, width, normalize, precision, ranges):
    # Pooled by the device's kernel: rows are those of segment_pooling, followed by torch's own functions, bit for bit.
    pooled, _ = torch.ops.sentcore.segment_pooling.default(x, cu_seqlens, mode, skip, False)
    return reference.quantized(pooled, normalize_before, width, normalize, precision, ranges)


def _quantized_fake(x, cu_seqlens, mode, skip, normalize_before, width, normalize, precision, ranges):
    sentences = cu_seqlens.shape[0] - 1
    columns = -(-width // 8) if precision in ("binary", "ubinary") else width
    rows = x.new_empty((sentences, columns), dtype=_STORED[precision])
    return rows, x.new_empty(sentences, dtype=torch.bool)


_STORED = {
    "float32": torch.float32,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "binary": torch.int8,
    "ubinary": torch.uint8,
}

define(
    "segment_pooling(Tensor x, Tensor cu_seqlens, str mode, int skip, bool normalize) -> (Tensor out, Tensor norm)",
    _forward,
    _forward_fake,
)
define(
    "segment_pooling_backward(Tensor grad_out, Tensor x, Tensor cu_seqlens, Tensor out, Tensor norm, str mode, int skip,"
    " bool normalize) -> Tensor",
    _backward,
    _backward_fake,
)
autograd("segment_pooling", _autograd, _setup_context)
define(
    "segment_pooling_quantized(Tensor x, Tensor cu_seqlens, str mode, int skip, bool normalize_before, int width,"
    " bool normalize, str precision, Tensor? ranges) -> (Tensor rows, Tensor finite)",
    _quantized,
    _quantized_fake,
)
