"""Whether a tensor was written to since: what is packed of weights is packed anew then."""

from __future__ import annotations

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

_steps = 0


def written_state(tensor: torch.Tensor) -> tuple[int, int, int]:
    """Differs from before where the tensor is another one, was written to, or any optimizer made a step.

    torch's version counter does not see what fused optimizers write (`fused=True`), so steps of all optimizers count. What is
    written through ``tensor.data`` is seen by neither.
    """
    return tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version, _steps


def written_states(tensors: list[torch.Tensor]) -> tuple[int, list[int], list[int]]:
    """`written_state` of many at once."""
    versions = [-1 if tensor.is_inference() else tensor._version for tensor in tensors]
    return _steps, [tensor.data_ptr() for tensor in tensors], versions


@torch.compiler.disable
def _count(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
    global _steps
    _steps += 1


register_optimizer_step_post_hook(_count)
