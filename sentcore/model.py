"""The whole path from a packed batch to sentence features, one line a stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from sentcore.config import EncoderConfig
from sentcore.layers import Encoder
from sentcore.outputs import (
    Dense,
    DenseSpec,
    Normalize,
    NormalizeSpec,
    OutputSpec,
    Pooling,
    PoolingSpec,
    hidden_states_needed,
)
from sentcore.outputs.specs import LAYER_POOLING_MODES
from sentcore.packed import PackedBatch


class Features(NamedTuple):
    """What one batch gives: token_embeddings [T, H] and sentence_embedding [B, E]."""

    token_embeddings: torch.Tensor
    sentence_embedding: torch.Tensor


class SentenceModel(nn.Module):
    """encoder -> pooling -> dense* -> normalize, in the order the model folder names them."""

    def __init__(self, config: EncoderConfig, outputs: Sequence[OutputSpec], backend: str = "auto") -> None:
        super().__init__()
        self.encoder = Encoder(config, backend)
        self.outputs = self.build_outputs(outputs, backend)

    @staticmethod
    def build_outputs(outputs: Sequence[OutputSpec], backend: str = "auto") -> nn.ModuleList:
        """The stages behind the encoder, on the CPU in float32."""
        return nn.ModuleList(_MODULES[type(spec)](spec, backend) for spec in outputs)

    def forward(self, batch: PackedBatch, prompt_length: int = 0) -> Features:
        """Features of a packed batch; prompt_length counts the tokens a pooling without prompts leaves out."""
        states = self._states(batch)
        tokens = self.encoder(batch) if states is None else states[max(states)]
        features = tokens
        for stage in self.outputs:
            features = stage(features, batch, prompt_length, states) if isinstance(stage, Pooling) else stage(features)
        return Features(tokens, features)

    def _states(self, batch: PackedBatch) -> dict[int, torch.Tensor] | None:
        """The hidden states that a pooling over several layers needs, by layer; None without such a pooling."""
        last = len(self.encoder.order())
        modes = [mode for stage in self.outputs if isinstance(stage, Pooling) for mode in stage.spec.modes]
        if not any(mode in LAYER_POOLING_MODES for mode in modes):
            return None
        layers = [*hidden_states_needed(modes, last), last]
        return dict(zip(layers, self.encoder.hidden_states(batch, layers), strict=True))


_MODULES = {
    PoolingSpec: lambda spec, backend: Pooling(spec),
    DenseSpec: Dense,
    NormalizeSpec: lambda spec, backend: Normalize(),
}
