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
    Colbert,
    Dense,
    DenseSpec,
    Heads,
    LinearSpec,
    Normalize,
    NormalizeSpec,
    OutputSpec,
    Pooling,
    PoolingSpec,
    RowForm,
    SparseLinear,
    SparseRows,
    Splade,
    hidden_states_needed,
    is_pooling_alone,
)
from sentcore.outputs.specs import LAYER_POOLING_MODES
from sentcore.packed import PackedBatch


class Features(NamedTuple):
    """What one batch gives; what was not asked for, or has no head, is None.

    Attributes:
        token_embeddings: [T, H].
        sentence_embedding: [B, E]; None for a model without pooling.
        sparse: B rows of token weights.
        colbert: [T, E], a vector of length 1 for every token.
    """

    token_embeddings: torch.Tensor | None
    sentence_embedding: torch.Tensor | None
    sparse: SparseRows | None = None
    colbert: torch.Tensor | None = None


class SentenceModel(nn.Module):
    """encoder -> pooling -> dense* -> normalize, in the order the model folder names them; heads beside these."""

    def __init__(self, config: EncoderConfig, outputs: Sequence[OutputSpec], backend: str = "auto") -> None:
        super().__init__()
        self.encoder = Encoder(config, backend)
        self.outputs = self.build_outputs(outputs, backend)
        self.sparse: SparseLinear | Splade | None = None
        self.colbert: Colbert | None = None

    @staticmethod
    def build_outputs(outputs: Sequence[OutputSpec], backend: str = "auto") -> nn.ModuleList:
        """The stages behind the encoder, on the CPU in float32."""
        return nn.ModuleList(_MODULES[type(spec)](spec, backend) for spec in outputs)

    def add_heads(self, heads: Heads, left_out: Sequence[int], tied: nn.Parameter, backend: str = "auto") -> None:
        """The heads behind the encoder, in float32.

        Args:
            heads: what there is.
            left_out: ids that bge-m3's sparse head gives no weight.
            tied: word embeddings [V, H] float32, for a masked-LM head without a decoder of its own.
        """
        self.sparse = self.colbert = None
        if isinstance(heads.sparse, LinearSpec):
            self.sparse = SparseLinear(heads.sparse, left_out, backend)
        elif heads.sparse is not None:
            self.sparse = Splade(heads.sparse, tied, backend)
        if heads.colbert is not None:
            self.colbert = Colbert(heads.colbert, backend)

    def forward(
        self, batch: PackedBatch, prompt_length: int = 0, *, sparse: bool = False, colbert: bool = False
    ) -> Features:
        """Features of a packed batch, by one pass of the encoder.

        Args:
            batch: T tokens of B sentences.
            prompt_length: tokens that a pooling without prompts leaves out.
            sparse, colbert: compute these heads too; the model must have them.
        """
        states = self._states(batch)
        tokens = self.encoder(batch) if states is None else states[max(states)]
        features = tokens if self.outputs else None
        for stage in self.outputs:
            features = stage(features, batch, prompt_length, states) if isinstance(stage, Pooling) else stage(features)
        return Features(
            tokens,
            features,
            self.sparse(tokens, batch) if sparse else None,
            self.colbert(tokens) if colbert else None,
        )

    def sentence_embedding(self, batch: PackedBatch, prompt_length: int = 0) -> torch.Tensor:
        """[B, E] alone, of sentences that all have tokens: where pooling reads one token, the last layer computes no other."""
        if not self._reads_one_row(prompt_length):
            return self(batch, prompt_length).sentence_embedding
        pooling = self.outputs[0]
        features = pooling.widened(self.encoder.encode_rows(batch, pooling.rows(batch)))
        for stage in self.outputs[1:]:
            features = stage(features)
        return features

    def finished_rows(
        self, batch: PackedBatch, form: RowForm, prompt_length: int = 0, *, none_empty: bool = False
    ) -> torch.Tensor:
        """Sentence features as `form` says: by one op where nothing but pooling and normalizing follows the encoder.

        Args:
            batch: T tokens of B sentences.
            form: what is made of the features.
            prompt_length: tokens that a pooling without prompts leaves out.
            none_empty: all sentences have tokens, so that one token's row is enough where pooling reads no other.

        Returns:
            Rows as RowForm.of_tokens gives them.
        """
        if not is_pooling_alone(self.outputs):
            embed = self.sentence_embedding if none_empty else self._whole_embedding
            return form.of_features(embed(batch, prompt_length))
        pooling, normalized = self.outputs[0], len(self.outputs) == 2
        if none_empty and self._reads_one_row(prompt_length):
            x = self.encoder.encode_rows(batch, pooling.rows(batch))
            each = torch.arange(len(x) + 1, dtype=torch.int32, device=x.device)
            return form.of_tokens(x, each, "cls", 0, normalized)
        skip = 0 if pooling.spec.include_prompt else prompt_length
        return form.of_tokens(self.encoder(batch), batch.cu_seqlens, pooling.spec.modes[0], skip, normalized)

    def _whole_embedding(self, batch: PackedBatch, prompt_length: int) -> torch.Tensor:
        return self(batch, prompt_length).sentence_embedding

    def _reads_one_row(self, prompt_length: int) -> bool:
        """Whether the outputs read one token's row of every sentence, and the encoder can give those alone."""
        pooling = self.outputs[0] if len(self.outputs) else None
        return isinstance(pooling, Pooling) and pooling.reads_one_row(prompt_length) and self.encoder.reads_rows()

    def _states(self, batch: PackedBatch) -> dict[int, torch.Tensor] | None:
        """The hidden states that a pooling over several layers needs, by layer; None without such a pooling."""
        last = len(self.encoder.order())
        modes = [mode for stage in self.outputs if isinstance(stage, Pooling) for mode in stage.spec.modes]
        if not any(mode in LAYER_POOLING_MODES for mode in modes):
            return None
        layers = [*hidden_states_needed(modes, last), last]
        return dict(zip(layers, self.encoder.hidden_states(batch, layers), strict=True))


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
