"""Whether a tensor was written to since: what is packed of weights is packed anew then."""

from __future__ import annotations

from operator import attrgetter

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

_steps = 0
_version = attrgetter("_version")


def written_state(tensor: torch.Tensor) -> tuple[int, int, int]:
    """Differs from before where the tensor is another one, was written to, or any optimizer made a step.

    torch's version counter does not see what fused optimizers write (`fused=True`), so steps of all optimizers count. What is
    written through ``tensor.data`` is seen by neither.
    """
    return tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version, _steps


class WrittenStates:
    """`written_state` of many tensors at once, looked at by what loops in C: it stands beside one short sentence."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        self._tensors = tensors
        self._counting = [tensor for tensor in tensors if not tensor.is_inference()]  # the others have no version
        self._before = self._now()

    def are_current(self) -> bool:
        """Whether no tensor was written to since."""
        return self._now() == self._before

    def _now(self) -> tuple[int, list[int], list[int]]:
        addresses = list(map(torch.Tensor.data_ptr, self._tensors))
        return _steps, addresses, list(map(_version, self._counting))


@torch.compiler.disable
def _count(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
    global _steps
    _steps += 1


register_optimizer_step_post_hook(_count)
