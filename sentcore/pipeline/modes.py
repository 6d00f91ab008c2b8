"""Work in eval mode that leaves a model's modes as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from sentcore.model import ClassifierModel, SentenceModel


@contextmanager
def evaluating(root: nn.Module, model: SentenceModel | ClassifierModel) -> Iterator[None]:
    """Everything in `root` in eval mode within, and as it was before afterwards; `model` is root's."""
    training = _in_training(root, model)
    if training:
        root.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _in_training(root: nn.Module, model: SentenceModel | ClassifierModel) -> list[nn.Module]:
    """The modules in training mode; none where those that hold all others are not, which is quick to see."""
    encoder = model.encoder
    holders = (root, model, *model.children(), encoder.embeddings, encoder.layers, *encoder.layers)
    return [module for module in root.modules() if module.training] if any(m.training for m in holders) else []
