"""accelerate and restore: which modules of a model are changed, and back."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.integrations.acceleration.borrowed import Borrowed
from sentcore.integrations.acceleration.classes import accelerated, is_accelerated, original_class
from sentcore.integrations.acceleration.models import AcceleratedLayer, AcceleratedModel
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
    by PEFT: it takes the real tokens out of (input_ids, attention_mask) once, runs all layers on them, and puts them back once.
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
    found = [module for module in model.modules() if _is_encoder(module)]
    if not found:
        raise ArgumentTypeError(
            f"model is of class {type(model).__name__} and holds no encoder that is known; accepted: {', '.join(ENCODERS)} of "
            "transformers, under any head. Classes derived from them may compute something else and are not taken for them"
        )
    fresh = [module for module in found if not is_accelerated(module)]
    # All are looked at before one is changed.
    for module, borrowed in [(module, Borrowed(module, backend)) for module in fresh]:
        for layer in borrowed.layers():
            layer.__class__ = accelerated(type(layer), AcceleratedLayer)
        module.__class__ = accelerated(type(module), AcceleratedModel)
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


def _is_encoder(module: nn.Module) -> bool:
    kind = original_class(type(module))
    return kind.__name__ in ENCODERS and kind.__module__.startswith("transformers.models.")
