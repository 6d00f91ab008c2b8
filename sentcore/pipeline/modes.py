"""Which parts of a model are in training mode, for work that has to leave them so."""

from __future__ import annotations

from torch import nn


def in_training(encoder: nn.Module) -> list[nn.Module]:
    """The modules of a SentenceEncoder in training mode; none where those that hold all others are not: a quick look."""
    model = encoder.model
    layers = model.encoder.layers
    holders = (encoder, model, model.encoder, model.encoder.embeddings, layers, *layers)
    return [module for module in encoder.modules() if module.training] if any(m.training for m in holders) else []
