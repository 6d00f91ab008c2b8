"""A checkpoint's weights in a model, ready to run."""

from __future__ import annotations

import torch
from torch import nn

from sentcore.checkpoint.cross_encoder import CrossEncoderCheckpoint
from sentcore.checkpoint.load import Checkpoint
from sentcore.model import ClassifierModel, SentenceModel
from sentcore.outputs import ClassificationHead


def build_model(checkpoint: Checkpoint, backend: str, device: torch.device, dtype: torch.dtype) -> SentenceModel:
    """The model on `device`; its encoder in `dtype`, torch.int8 for linear layers in 8 bits, its outputs in float32."""
    with torch.device("meta"):  # no time spent on weights that are replaced
        encoder_only = SentenceModel(checkpoint.config, (), backend)
    encoder_only.encoder.load_state_dict(checkpoint.state_dict, assign=True)
    model = SentenceModel.__new__(SentenceModel)
    nn.Module.__init__(model)
    if dtype == torch.int8:
        model.encoder = encoder_only.encoder.to_int8()
    else:
        model.encoder = encoder_only.encoder.to(device=device, dtype=dtype)
    model.outputs = SentenceModel.build_outputs(checkpoint.modules, backend).to(device=device)
    return model


def build_classifier(
    checkpoint: CrossEncoderCheckpoint, backend: str, device: torch.device, dtype: torch.dtype
) -> ClassifierModel:
    """The same of a cross-encoder; its head in float32."""
    with torch.device("meta"):
        model = ClassifierModel(checkpoint.config, checkpoint.head, backend)
    model.encoder.load_state_dict(checkpoint.state_dict, assign=True)
    model.head = ClassificationHead(checkpoint.head, backend)
    model.head.load_state_dict(checkpoint.head_state)
    model.head.to(device)
    if dtype == torch.int8:
        model.encoder.to_int8()
    else:
        model.encoder.to(device=device, dtype=dtype)
    return model
