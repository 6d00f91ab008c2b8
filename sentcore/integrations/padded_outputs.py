"""Pooling, dense and normalize on a padded batch: a second, plain statement of `sentcore.outputs`, to compare with."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F

from sentcore.outputs.specs import DenseSpec, NormalizeSpec, OutputSpec, PoolingSpec


def padded_features(x: torch.Tensor, mask: torch.Tensor, modules: Iterable[OutputSpec]) -> torch.Tensor:
    """[B, S, H] token features and their mask [B, S] (1 for a token, padding on the right) -> [B, E]."""
    for spec in modules:
        if isinstance(spec, PoolingSpec):
            x = torch.cat([_pooled(x, mask, mode) for mode in spec.modes], dim=-1)
        elif isinstance(spec, DenseSpec):
            x = _activated(F.linear(x, spec.weight, spec.bias), spec.activation)
        elif isinstance(spec, NormalizeSpec):
            x = x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        else:
            raise AssertionError(f"no padded form of {type(spec).__name__}")
    return x


def _pooled(x: torch.Tensor, mask: torch.Tensor, mode: str) -> torch.Tensor:
    weights = mask.to(x.dtype)[:, :, None]  # [B, S, 1]
    count = weights.sum(dim=1).clamp(min=1e-9)
    if mode == "cls":
        return x[:, 0]
    if mode == "max":
        return x.masked_fill(mask[:, :, None] == 0, -torch.inf).amax(dim=1)
    if mode == "mean":
        return (x * weights).sum(dim=1) / count
    if mode == "mean_sqrt_len_tokens":
        return (x * weights).sum(dim=1) / count.sqrt()
    if mode == "weightedmean":
        places = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[None, :, None] * weights
        return (x * places).sum(dim=1) / places.sum(dim=1).clamp(min=1e-9)
    if mode == "lasttoken":
        last = (mask.sum(dim=1) - 1).clamp(min=0)
        return x[torch.arange(x.shape[0]), last]
    raise AssertionError(f"no padded form of the pooling mode {mode!r}")


def _activated(x: torch.Tensor, name: str) -> torch.Tensor:
    if name == "gelu_tanh":
        return F.gelu(x, approximate="tanh")
    functions = {
        "identity": lambda y: y,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "gelu": F.gelu,
        "sigmoid": torch.sigmoid,
        "silu": F.silu,
    }
    return functions[name](x)
