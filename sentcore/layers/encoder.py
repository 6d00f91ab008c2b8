"""The bare encoder: embeddings, then layers, on a packed batch."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import nn

from sentcore.config import EncoderConfig
from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.layers.all_layers import AllLayers
from sentcore.layers.embeddings import Embeddings
from sentcore.layers.encoder_layer import EncoderLayer
from sentcore.layers.fp8 import Fp8Linear
from sentcore.layers.int8 import Int8Linear
from sentcore.layers.padding import pack_padded, unpack_padded
from sentcore.layers.positions import PositionSchemes
from sentcore.layers.rounded import RoundedLinear
from sentcore.ops.backends import check_backend, ops_of
from sentcore.ops.plain import is_plain
from sentcore.packed import PackedBatch


class Encoder(nn.Module):
    """A Transformer encoder (Devlin et al. 2018) that computes no padding; its variants are EncoderConfig's.

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
        self.positions = PositionSchemes(config)
        groups = config.num_hidden_groups or config.num_hidden_layers
        self.layers = nn.ModuleList(
            EncoderLayer(config, backend, is_first=group == 0) for group in range(min(groups, config.num_hidden_layers))
        )
        self.final_norm = None
        if config.norm_first:
            self.final_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps, bias=config.norm_bias)
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
            position_ids: [B, S], rows of the position table; None for columns 0..S-1, or where the table has an offset for a
                count of the ids that are not pad_token_id, as RoBERTa counts.

        Returns:
            [T, H] for a PackedBatch, else [B, S, H] with zeros where attention_mask is zero.

        Raises:
            ArgumentTypeError, ArgumentValueError: by argument, value found, what is accepted, remedy. An id outside
            the vocabulary is named on CPUs, where looking costs no synchronisation.
        """
        if isinstance(input_ids, PackedBatch):
            return self.encode_packed(input_ids)
        config = self.config
        batch, places = pack_padded(
            input_ids, attention_mask, token_type_ids, position_ids, config.position_offset, config.uncounted_id
        )
        return unpack_padded(self.encode_packed(batch), places, input_ids.shape)

    def encode_packed(self, batch: PackedBatch) -> torch.Tensor:
        """[T, H], the last hidden state of a packed batch."""
        self.check_batch(batch)
        x = self.embeddings(batch)
        at_once = self.all_layers(x, batch)
        if at_once is not None:
            return at_once
        for state in self._layer_by_layer(x, batch):
            x = state
        return x

    def hidden_states(self, batch: PackedBatch, layers: Collection[int] | None = None) -> list[torch.Tensor]:
        """[T, H] behind the embeddings and behind every layer, L + 1 in all; the last is `encode_packed`'s.

        Args:
            layers: which of them to give, in ascending order: 0 the embeddings, L the last layer; the others are not kept.
                None for all.

        Raises:
            ArgumentValueError: a layer that the encoder does not have.
        """
        last = len(self.order())
        if layers is not None and not set(layers) <= set(range(last + 1)):
            raise ArgumentValueError(f"layers is {list(layers)}; accepted: from 0, the embeddings, to {last}")
        self.check_batch(batch)
        states = enumerate(self._layer_by_layer(self.embeddings(batch), batch))
        return [state for layer, state in states if layers is None or layer in layers]

    def encode_rows(self, batch: PackedBatch, rows: torch.Tensor) -> torch.Tensor:
        """[B, H], `encode_packed` at one row of each sentence: the last layer computes no other.

        Args:
            rows: [B] int64, row b a token of sentence b.
        """
        order = self.order()
        if not self.reads_rows():
            return self.encode_packed(batch)[rows]
        self.check_batch(batch)
        x = self.embeddings(batch)
        positions = self.positions(batch)
        before_last = self._all_layers(self, x, batch, len(order) - 1)
        if before_last is None:
            for place, group in enumerate(order[:-1]):
                x = self.layers[group](x, batch, positions[self.config.is_sliding(place)])
        else:
            x = before_last
        return self.finish(self.layers[order[-1]].of_rows(x, rows, batch, positions[False]))

    def reads_rows(self) -> bool:
        """Whether the last layer can compute chosen rows alone: it sees all keys, and not by their distance."""
        config, last = self.config, len(self.order()) - 1
        by_distance = config.position_embedding_type == "alibi" or config.relative_attention_num_buckets > 0
        return last >= 0 and not by_distance and not config.is_sliding(last) and not self.training

    def all_layers(self, x: torch.Tensor, batch: PackedBatch) -> torch.Tensor | None:
        """[T, H] -> [T, H] through all layers in one call, or None where they have to be run one by one."""
        return self._all_layers(self, x, batch)

    def order(self) -> list[int]:
        """For every layer, in order, the place in `layers` of its weights."""
        config = self.config
        if config.num_hidden_groups is None:
            return list(range(len(self.layers)))  # not num_hidden_layers: the list may have been shortened
        return [config.group_of(layer) for layer in range(config.num_hidden_layers)]

    def to_int8(self) -> Encoder:
        """In place, for inference on a CPU: linear layers in 8 bits, all else in bfloat16. Cannot be undone."""
        return self._round_weights(Int8Linear)

    def to_fp8(self) -> Encoder:
        """The same in 8-bit floating point (e4m3), for GPUs that multiply it."""
        return self._round_weights(Fp8Linear)

    @property
    def dtype(self) -> torch.dtype:
        """What the linear layers multiply in: torch.int8, torch.float8_e4m3fn, or the weights' dtype."""
        for kind, dtype in ((Int8Linear, torch.int8), (Fp8Linear, torch.float8_e4m3fn)):
            if any(isinstance(layer.attention.output, kind) for layer in self.layers):
                return dtype
        return self.embeddings.word_embeddings.weight.dtype

    def _round_weights(self, kind: type[RoundedLinear]) -> Encoder:
        for layer in self.layers:
            layer.attention.round_weights(kind)
            layer.feed_forward.round_weights(kind)
        return self.to(torch.bfloat16).requires_grad_(False)

    def _layer_by_layer(self, x: torch.Tensor, batch: PackedBatch) -> Iterator[torch.Tensor]:
        """`x` itself, then the output of every layer; holds the last one given alone."""
        yield x
        order = self.order()
        positions = self.positions(batch)
        for place, group in enumerate(order, start=1):
            x = self.layers[group](x, batch, positions[self.config.is_sliding(place - 1)])
            yield self.finish(x) if place == len(order) else x

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        """[T, H] -> [T, H]: the LayerNorm behind the last layer, where there is one."""
        norm = self.final_norm
        if norm is None:
            return x
        if not is_plain(norm):
            return norm(x)
        return ops_of(self.backend).add_layer_norm(x, None, norm.weight, norm.bias, eps=norm.eps)

    def check_batch(self, batch: PackedBatch) -> None:
        """Raises ArgumentValueError for a sentence that is too long and, on CPUs, for an id outside its table."""
        config = self.config
        if batch.max_seqlen > config.max_length:
            offset = f" - position_offset = {config.position_offset}" if config.position_offset else ""
            raise ArgumentValueError(
                f"the batch holds a sentence of {batch.max_seqlen} tokens; accepted: at most max_position_embeddings "
                f"= {config.max_position_embeddings}{offset}. Cut it when tokenizing (max_length)"
            )
        if torch.compiler.is_compiling() or not batch.token_ids.is_cpu or not batch.num_tokens:
            return
        offset = config.position_offset
        for name, values, low, high in (
            ("token_ids", batch.token_ids, 0, config.vocab_size),
            ("position_ids", batch.position_ids, -offset, config.max_length),
            ("token_type_ids", batch.token_type_ids, 0, config.type_vocab_size),
        ):
            if high == 0:  # a model without token types
                continue
            least, largest = (int(value) for value in torch.aminmax(values))
            if least < low or largest >= high:
                raise ArgumentValueError(
                    f"{name} holds {least if least < low else largest}; accepted: {low} to {high - 1}, the rows of the "
                    "model's table. The ids come from another model's tokenizer"
                )

    def _initialize(self, module: nn.Module) -> None:
        # On the meta device, where a checkpoint's weights come in their place, drawing nothing still takes milliseconds a tensor.
        if isinstance(module, (nn.Linear, nn.Embedding)) and not module.weight.is_meta:
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
