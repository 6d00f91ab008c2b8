"""Whether a model is still what a graph was captured of."""

from __future__ import annotations

from itertools import chain
from operator import attrgetter, is_, itemgetter

import torch
from torch import nn
from torch.nn.modules import module as torch_module

from sentcore.ops.writes import WrittenStates

_hooks = attrgetter("_forward_hooks", "_forward_pre_hooks")
_training = itemgetter("training")
_eps = attrgetter("eps")


class ModelState:
    """Modules, their tensors and options, hooks, modes and values of a model, as they were.

    Looking at all of it takes some hundredths of a millisecond, in loops that run in C.

    Attributes:
        model: the model.
        why_not: why no graph may stand in the model's place, or None.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        modules = list(model.modules())
        self._attributes = [m.__dict__ for m in modules]
        self._dicts = [held for m in modules for held in (m._modules, m._parameters, m._buffers)]
        # Of ours the options too, as a pooling's modes; of torch's the one that the families' modules have.
        self._dicts += [m.__dict__ for m in modules if _is_of(m, "sentcore")]
        self._norms = [m for m in modules if isinstance(m, nn.LayerNorm)]
        self._hooks = list(chain.from_iterable(map(_hooks, modules)))
        self._sizes, self._values, self._modes = self._now_sizes(), self._now_values(), self._now_modes()
        tensors = [value for value in self._values if isinstance(value, torch.Tensor)]
        self._written = WrittenStates(tensors)
        # A graph reads addresses. As long as these are held, none of them can become another tensor's.
        self._kept = [tensor.detach() for tensor in tensors]
        self.why_not = self._why_not(modules)

    def is_current(self) -> bool:
        """Whether no module, tensor, option, value, mode or hook has changed since."""
        return (
            self._now_sizes() == self._sizes
            and all(map(is_, self._now_values(), self._values))
            and self._now_modes() == self._modes
            and self._written.are_current()
        )

    def _now_sizes(self) -> list[float]:
        return [*map(len, self._attributes), *map(len, self._dicts), *map(_eps, self._norms)]

    def _now_values(self) -> list[object]:
        return list(chain.from_iterable(map(dict.values, self._dicts)))

    def _now_modes(self) -> tuple[bool, bool]:
        """Whether anybody looks on, and whether anything is in training mode."""
        everywhere = torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks
        return bool(everywhere) or any(self._hooks), any(map(_training, self._attributes))

    def _why_not(self, modules: list[nn.Module]) -> str | None:
        observed, training = self._modes
        if observed:
            return "a forward hook"
        if training:
            return "training mode"
        for module in modules:
            if any(callable(getattr(type(module), name, None)) for name in module.__dict__):
                return "a method that was replaced"
            if not _is_of(module, "sentcore") and not _is_of(module, "torch"):
                return (
                    f"a module of another library, {type(module).__name__}"  # may keep what decides its output anywhere
                )
        return None


def _is_of(module: nn.Module, package: str) -> bool:
    return type(module).__module__.split(".", 1)[0] == package
