"""Whether a module's tensors say all it does, so that an op may read them instead of calling it.

An adapter (LoRA and its kin) stands in a linear layer's place and still shows the weight beneath; a forward hook may change
what leaves a module. Reading weights past either would give another model's features, so both are called as modules.
"""

from __future__ import annotations

from torch import nn


def is_plain(*modules: nn.Module) -> bool:
    """Whether all are exactly nn.Linear, nn.LayerNorm or nn.Embedding, without hooks: their tensors say all they do."""
    return all(
        type(module) in (nn.Linear, nn.LayerNorm, nn.Embedding)
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and not module._backward_hooks
        and not module._backward_pre_hooks
        and "forward" not in module.__dict__
        for module in modules
    )
