"""Which tokens a pooled feature is made of."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sentcore.outputs import Pooling, PoolingSpec
from sentcore.packed import PackedBatch


def pooling_shares(
    stage: Pooling,
    x: torch.Tensor,
    batch: PackedBatch,
    prompt_length: int = 0,
    states: Mapping[int, torch.Tensor] | None = None,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """(mode -> weights [T], parts [T, H · modes]) of a pooling of one sentence; the parts add up to what the stage gives.

    Every pooling picks or adds its rows' columns one by one, scaled: column h of the result is the sum over tokens of
    d result_h / d x_th · x_th. These derivatives, by the stage's own backward, are the weights; of two layers' pooling they
    are added over both.

    Args:
        stage, x, batch, prompt_length, states: as Pooling.forward takes them; B is 1.
    """
    weights: dict[str, torch.Tensor] = {}
    parts = []
    for mode in stage.spec.modes:
        one = Pooling(PoolingSpec((mode,), stage.spec.include_prompt))
        with torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            leaves = None
            if states is not None:
                leaves = {layer: state.detach().clone().requires_grad_() for layer, state in states.items()}
            pooled = one(leaf, batch, prompt_length, leaves)
            read = [leaf, *(leaves or {}).values()]
            gradients = torch.autograd.grad(pooled.sum(), read, allow_unused=True)
        used = [(rows.detach(), slope) for rows, slope in zip(read, gradients, strict=True) if slope is not None]
        weights[mode] = sum(slope.float().mean(dim=1) for _, slope in used)
        parts.append(sum(slope.float() * rows.float() for rows, slope in used))
    return weights, torch.cat(parts, dim=1)
