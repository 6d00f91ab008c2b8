"""The whole path from a packed batch to sentence features, one line a stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from sentcore.config import EncoderConfig
from sentcore.errors import ArgumentValueError
from sentcore.layers import Encoder
from sentcore.outputs import (
    ClassificationHead,
    ClassificationHeadSpec,
    Dense,
    DenseSpec,
    Normalize,
    NormalizeSpec,
    OutputSpec,
    Pooling,
    PoolingSpec,
)
from sentcore.packed import PackedBatch


class Features(NamedTuple):
    """What one batch gives: token_embeddings [T, H] (None where nobody asked) and sentence_embedding [B, E]."""

    token_embeddings: torch.Tensor | None
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
        tokens = self.encoder(batch)
        features = tokens
        for stage in self.outputs:
            features = stage(features, batch, prompt_length) if isinstance(stage, Pooling) else stage(features)
        return Features(tokens, features)

    def sentence_embedding(self, batch: PackedBatch, prompt_length: int = 0) -> torch.Tensor:
        """[B, E] alone, of sentences that all have tokens: where pooling reads one token, the last layer computes no other."""
        pooling = self.outputs[0] if len(self.outputs) else None
        if (
            not isinstance(pooling, Pooling)
            or not pooling.reads_one_row(prompt_length)
            or not self.encoder.reads_rows()
        ):
            return self(batch, prompt_length).sentence_embedding
        features = pooling.widened(self.encoder.encode_rows(batch, pooling.rows(batch)))
        for stage in self.outputs[1:]:
            features = stage(features)
        return features


class ClassifierModel(nn.Module):
    """encoder -> classification head."""

    def __init__(self, config: EncoderConfig, head: ClassificationHeadSpec, backend: str = "auto") -> None:
        super().__init__()
        self.encoder = Encoder(config, backend)
        self.head = ClassificationHead(head, backend)

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """[B, num_labels] of a packed batch, before any activation.

        Raises:
            ArgumentValueError: a sentence without tokens, seen on CPUs, where looking costs no synchronisation.
        """
        starts = batch.cu_seqlens
        if starts.is_cpu and not torch.compiler.is_compiling() and bool((starts[1:] == starts[:-1]).any()):
            empty = int((starts[1:] == starts[:-1]).nonzero()[0])
            raise ArgumentValueError(
                f"sentence {empty} of the batch has no tokens; accepted: at least one, whose feature the head reads"
            )
        if self.head.spec.pooling == "mean":
            return self.head(self.head.mean(self.encoder(batch), starts))
        return self.head(self.encoder.encode_rows(batch, starts[:-1].long()))


_MODULES = {
    PoolingSpec: lambda spec, backend: Pooling(spec),
    DenseSpec: Dense,
    NormalizeSpec: lambda spec, backend: Normalize(),
}
