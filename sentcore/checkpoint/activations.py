"""What is applied to a cross-encoder's scores: by the dotted names that folders hold, which are never imported."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from sentcore.checkpoint.cross_encoder import CrossEncoderCheckpoint
from sentcore.errors import ArgumentValueError, CheckpointError
from sentcore.model_files import shown

Activation = Callable[[torch.Tensor], torch.Tensor]

_CLASSES = (nn.Identity, nn.Sigmoid, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU)
_ACCEPTED = ", ".join(f"torch.nn.{cls.__qualname__}" for cls in _CLASSES)
ACTIVATIONS: dict[str, type[nn.Module]] = {
    **{f"{cls.__module__}.{cls.__qualname__}": cls for cls in _CLASSES},
    **{f"torch.nn.{cls.__qualname__}": cls for cls in _CLASSES},
}


def default_activation(checkpoint: CrossEncoderCheckpoint) -> Activation:
    """The folder's; where it names none a sigmoid for one label and nothing for several.

    Raises:
        CheckpointError: it names one that is not known.
    """
    name = checkpoint.activation
    if name is None:
        return nn.Sigmoid() if checkpoint.head.num_labels == 1 else nn.Identity()
    if name not in ACTIVATIONS:
        raise CheckpointError(
            f"{checkpoint.activation_source}: the activation of the scores is {shown(name)}; accepted: {_ACCEPTED}. Code that a "
            "folder names is not run: give the function itself as activation_fn"
        )
    return ACTIVATIONS[name]()


def activation_name(activation: Activation) -> str:
    """The dotted name that a folder can hold.

    Raises:
        ArgumentValueError: it has none.
    """
    kind = type(activation)
    name = f"{kind.__module__}.{kind.__qualname__}"
    # The name alone is kept, so what has settings of its own, such as GELU's approximation, is not it.
    if name not in ACTIVATIONS or repr(activation) != repr(ACTIVATIONS[name]()):
        raise ArgumentValueError(
            f"activation_fn is {activation!r}; accepted for saving: one of {_ACCEPTED}. Set another one before saving, and "
            "give yours when loading"
        )
    return name
