"""A checkpoint's weights in a model, ready to run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sentcore.checkpoint.cross_encoder import CrossEncoderCheckpoint
from sentcore.checkpoint.load import Checkpoint
from sentcore.model import ClassifierModel, SentenceModel
from sentcore.outputs import ClassificationHead

_WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"


def build_model(
    checkpoint: Checkpoint, backend: str, device: torch.device, dtype: torch.dtype, left_out: Sequence[int] = ()
) -> SentenceModel:
    """The model on `device`; its encoder in `dtype`, torch.int8 or float8_e4m3fn for linear layers in 8 bits, all behind it in
    float32.

    `left_out` are token ids that bge-m3's sparse head gives no weight.
    """
    with torch.device("meta"):  # no time spent on weights that are replaced
        encoder_only = SentenceModel(checkpoint.config, (), backend)
    encoder_only.encoder.load_state_dict(checkpoint.state_dict, assign=True)
    model = SentenceModel.__new__(SentenceModel)
    nn.Module.__init__(model)
    if dtype == torch.int8:
        model.encoder = encoder_only.encoder.to_int8()
    elif dtype == torch.float8_e4m3fn:
        model.encoder = encoder_only.encoder.to_fp8().to(device)
    else:
        model.encoder = encoder_only.encoder.to(device=device, dtype=dtype)
    model.outputs = SentenceModel.build_outputs(checkpoint.modules, backend).to(device=device)
    embeddings = model.encoder.embeddings.word_embeddings.weight
    if embeddings.dtype != torch.float32:  # a head computes in float32, from weights that were not rounded
        embeddings = nn.Parameter(checkpoint.state_dict[_WORD_EMBEDDINGS])
    model.add_heads(checkpoint.heads, left_out, embeddings, backend)
    for head in (model.sparse, model.colbert):
        if head is not None:
            head.to(device=device)
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
    elif dtype == torch.float8_e4m3fn:
        model.encoder.to_fp8().to(device)
    else:
        model.encoder.to(device=device, dtype=dtype)
    return model
