"""accelerate and restore: which modules of a model are changed, and back."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.integrations.acceleration.borrowed import Borrowed
from sentcore.integrations.acceleration.classes import Accelerated, accelerated, is_accelerated, original_class
from sentcore.integrations.acceleration.models import AcceleratedLayer, AcceleratedModel
from sentcore.integrations.acceleration.torch_encoder import (
    AcceleratedTorchEncoder,
    AcceleratedTorchLayer,
    BorrowedLayer,
    BorrowedStack,
)
from sentcore.ops.backends import check_backend

Model = TypeVar("Model", bound=nn.Module)

# Classes of transformers whose forward is ids in, hidden states out; heads stand around them.
ENCODERS = (
    "AlbertModel",
    "BertModel",
    "CamembertModel",
    "DistilBertModel",
    "ElectraModel",
    "GteModel",
    "MPNetModel",
    "ModernBertModel",
    "NomicBertModel",
    "RobertaModel",
    "XLMRobertaModel",
)


def accelerate(model: Model, backend: str = "auto") -> Model:
    """Makes the encoders in `model` compute no padding, in place: the same parameters under the same names, the same outputs.

    A transformers encoder of a supported family, alone, under any head, in a SentenceTransformer or a CrossEncoder, or wrapped
    by PEFT: it takes the real tokens out of (input_ids or inputs_embeds, attention_mask) once, runs all layers on them, and puts
    them back once. torch.nn.TransformerEncoder, or a TransformerEncoderLayer outside of one, does so by src_key_padding_mask.
    Adapters in the place of linear layers, hooks on layers, gradient checkpointing, dropout from torch's generator and frozen
    parameters work as before. Hidden states at padding are zeros. What a call asks for beyond that (attentions, a mask of three
    or four dimensions, a cache) is computed by the model's own code, with one warning where it costs the gain.

    Args:
        model: any module; the encoders in it are found.
        backend: "auto", "native" (an error where the compiled kernels are absent) or "reference" (plain PyTorch).

    Returns:
        `model` itself. `restore(model)` undoes it.

    Raises:
        ArgumentTypeError: there is no such encoder in it; by class, with what is accepted.
        ArgumentValueError, CheckpointError: one of them cannot be run packed; by class and reason. The model is untouched.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(f"model is of type {type(model).__name__}; accepted: a torch.nn.Module")
    check_backend(backend)
    found = _encoders(model)
    if not found:
        raise ArgumentTypeError(
            f"model is of class {type(model).__name__} and holds no encoder that is known; accepted: {', '.join(ENCODERS)} of "
            "transformers, under any head, torch.nn.TransformerEncoder and TransformerEncoderLayer. Classes derived from them may "
            "compute something else and are not taken for them"
        )
    # All are looked at before one is changed.
    changes = [
        (module, methods, borrow(module, backend)) for module, (borrow, methods) in found if not is_accelerated(module)
    ]
    for module, methods, borrowed in changes:
        for layer in borrowed.layers():
            layer.__class__ = accelerated(type(layer), AcceleratedLayer)
        module.__class__ = accelerated(type(module), methods)
        module._sentcore = borrowed
    return model


def restore(model: Model) -> Model:
    """Undoes `accelerate`, in place: `model` is of its own classes again, bit for bit as if it had never been changed.

    Raises:
        ArgumentTypeError, ArgumentValueError: nothing in `model` is accelerated.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(f"model is of type {type(model).__name__}; accepted: a torch.nn.Module")
    changed = [module for module in model.modules() if is_accelerated(module)]
    if not changed:
        raise ArgumentValueError(
            f"model is of class {type(model).__name__} with nothing accelerated in it; accepted: what sentcore.accelerate changed"
        )
    for module in changed:
        module.__class__ = original_class(type(module))
        module.__dict__.pop("_sentcore", None)
    return model


def _encoders(model: nn.Module) -> list[tuple[nn.Module, tuple[type, type[Accelerated]]]]:
    """The encoders in a model, each with (what stands on its parts, the methods it gets)."""
    found, members = [], set()
    for module in model.modules():
        kind = original_class(type(module))
        if kind is nn.TransformerEncoder:
            members.update(module.layers)
            found.append((module, (BorrowedStack, AcceleratedTorchEncoder)))
        elif kind is nn.TransformerEncoderLayer and module not in members:
            found.append((module, (BorrowedLayer, AcceleratedTorchLayer)))
        elif kind.__name__ in ENCODERS and kind.__module__.startswith("transformers.models."):
            found.append((module, (Borrowed, AcceleratedModel)))
    return found
