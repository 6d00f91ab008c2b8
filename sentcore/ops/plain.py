"""Whether a module's tensors say all it does, so that an op may read them instead of calling it.

An adapter (LoRA and its kin) stands in a linear layer's place and still shows the weight beneath; a forward hook may change
what leaves a module. Reading weights past either would give another model's features, so both are called as modules.
"""

from __future__ import annotations

from torch import nn

_KINDS = (nn.Linear, nn.LayerNorm, nn.Embedding)


def is_plain(*modules: nn.Module, kinds: tuple[type[nn.Module], ...] = _KINDS) -> bool:
    """Whether all are exactly of one of `kinds`, without hooks: their tensors, or their kind alone, say all they do."""
    return all(
        type(module) in kinds
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and not module._backward_hooks
        and not module._backward_pre_hooks
        and "forward" not in module.__dict__
        for module in modules
    )


def is_observed(part: nn.Module) -> bool:
    """Whether somebody's hook or method stands on a part, which has to be called then."""
    return bool(
        part._forward_hooks
        or part._forward_pre_hooks
        or part._backward_hooks
        or part._backward_pre_hooks
        or "forward" in part.__dict__
    )
