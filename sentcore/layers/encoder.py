"""The bare encoder: embeddings, then layers, on a packed batch."""

from __future__ import annotations

import torch
from torch import nn

from sentcore.config import EncoderConfig
from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.layers.all_layers import AllLayers
from sentcore.layers.attention import Attention
from sentcore.layers.embeddings import Embeddings
from sentcore.layers.feed_forward import FeedForward
from sentcore.layers.int8 import Int8Linear
from sentcore.layers.padding import pack_padded, unpack_padded
from sentcore.ops.backends import check_backend
from sentcore.packed import PackedBatch


class EncoderLayer(nn.Module):
    """One Transformer layer: attention, then feed-forward, each followed by residual and LayerNorm."""

    def __init__(self, config: EncoderConfig, backend: str = "auto") -> None:
        super().__init__()
        self.attention = Attention(config, backend)
        self.feed_forward = FeedForward(config, backend)

    def forward(self, x: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        """[T, H] -> [T, H]."""
        return self.feed_forward(self.attention(x, batch))


class Encoder(nn.Module):
    """A BERT-architecture encoder (Devlin et al. 2018) that computes no padding.

    Args:
        config: the architecture.
        backend: "auto" (compiled kernels where there are some), "native" (an error without them) or "reference".
    """

    def __init__(self, config: EncoderConfig, backend: str = "auto") -> None:
        super().__init__()
        if not isinstance(config, EncoderConfig):
            raise ArgumentTypeError(f"config is of type {type(config).__name__}; accepted: a sentcore.EncoderConfig")
        self.config = config
        self.backend = check_backend(backend)
        self.embeddings = Embeddings(config, backend)
        self.layers = nn.ModuleList(EncoderLayer(config, backend) for _ in range(config.num_hidden_layers))
        self._all_layers = AllLayers()
        self.apply(self._initialize)

    def forward(
        self,
        input_ids: PackedBatch | torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The last hidden state, packed or padded like the input.

        Args:
            input_ids: a PackedBatch of T tokens, or [B, S] ids with the three further tensors of transformers' models.
            attention_mask: [B, S], non-zero where a token is real; None for all.
            token_type_ids: [B, S], None for zeros.
            position_ids: [B, S], None for columns 0..S-1.

        Returns:
            [T, H] for a PackedBatch, else [B, S, H] with zeros where attention_mask is zero.

        Raises:
            ArgumentTypeError, ArgumentValueError: by argument, value found, what is accepted, remedy. An id outside
            the vocabulary is named on CPUs, where looking costs no synchronisation.
        """
        if isinstance(input_ids, PackedBatch):
            return self.encode_packed(input_ids)
        batch, places = pack_padded(input_ids, attention_mask, token_type_ids, position_ids)
        return unpack_padded(self.encode_packed(batch), places, input_ids.shape)

    def encode_packed(self, batch: PackedBatch) -> torch.Tensor:
        """[T, H], the last hidden state of a packed batch."""
        self._check(batch)
        x = self.embeddings(batch)
        at_once = self._all_layers(self.layers, self.backend, x, batch)
        if at_once is not None:
            return at_once
        for layer in self.layers:
            x = layer(x, batch)
        return x

    def to_int8(self) -> Encoder:
        """In place, for inference on a CPU: linear layers in 8 bits, all else in bfloat16. Cannot be undone."""
        for layer in self.layers:
            layer.attention.to_int8()
            layer.feed_forward.to_int8()
        return self.to(torch.bfloat16).requires_grad_(False)

    @property
    def dtype(self) -> torch.dtype:
        """What the linear layers multiply in: torch.int8, or the weights' dtype."""
        weight = self.embeddings.word_embeddings.weight
        return torch.int8 if any(isinstance(module, Int8Linear) for module in self.layers.modules()) else weight.dtype

    def _check(self, batch: PackedBatch) -> None:
        config = self.config
        if batch.max_seqlen > config.max_position_embeddings:
            raise ArgumentValueError(
                f"the batch holds a sentence of {batch.max_seqlen} tokens; accepted: at most max_position_embeddings "
                f"= {config.max_position_embeddings}. Cut it when tokenizing (max_length)"
            )
        if torch.compiler.is_compiling() or not batch.token_ids.is_cpu or not batch.num_tokens:
            return
        for name, values, table in (
            ("token_ids", batch.token_ids, config.vocab_size),
            ("position_ids", batch.position_ids, config.max_position_embeddings),
            ("token_type_ids", batch.token_type_ids, config.type_vocab_size),
        ):
            if name == "token_type_ids" and not config.type_vocab_size:
                continue
            low, high = (int(value) for value in torch.aminmax(values))
            if low < 0 or high >= table:
                raise ArgumentValueError(
                    f"{name} holds {low if low < 0 else high}; accepted: 0 to {table - 1}, the rows of the model's "
                    "table. The ids come from another model's tokenizer"
                )

    def _initialize(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
