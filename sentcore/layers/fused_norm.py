"""The end of a layer's halves, linear layer, residual and LayerNorm, in one op where that is the faster way."""

from __future__ import annotations

import torch
from torch import nn

from sentcore.layers.attention import Attention
from sentcore.layers.feed_forward import FeedForward
from sentcore.layers.positions import Positions
from sentcore.ops.backends import ops_of
from sentcore.ops.linear_add_layer_norm import is_taken
from sentcore.ops.plain import is_observed, is_plain
from sentcore.packed import PackedBatch


def attention_and_norm(
    part: Attention, x: torch.Tensor, batch: PackedBatch, positions: Positions
) -> torch.Tensor | None:
    """[T, H] -> LayerNorm(x + attention(x)), or None where that has to be done one by one."""
    if not _fits(part, part.output, x):
        return None
    return _finished(part, part.output, part.context(x, batch, positions), x)


def feed_forward_and_norm(part: FeedForward, x: torch.Tensor) -> torch.Tensor | None:
    """[T, H] -> LayerNorm(x + feed_forward(x)), or None likewise."""
    if not _fits(part, part.down, x):
        return None
    return _finished(part, part.down, part.inner(x), x)


def _fits(part: Attention | FeedForward, linear: nn.Module, x: torch.Tensor) -> bool:
    norm = part.layer_norm
    if not _on_gpu(x) or part.training or torch.is_grad_enabled() or part.backend == "reference":
        return False
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type):
        return False
    return (
        not is_observed(part)
        and is_plain(linear, norm)
        and is_taken(x, linear.weight, linear.bias, norm.weight, norm.bias)
    )


def _on_gpu(x: torch.Tensor) -> bool:
    return x.device.type == "cuda"


def _finished(
    part: Attention | FeedForward, linear: nn.Linear, given: torch.Tensor, residual: torch.Tensor
) -> torch.Tensor:
    norm = part.layer_norm
    return ops_of(part.backend).linear_add_layer_norm(
        given, linear.weight, linear.bias, residual, norm.weight, norm.bias, eps=norm.eps
    )
