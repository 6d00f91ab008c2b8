"""Hooks on an encoder that keep what its layers were given and gave, while it computes as always."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from sentcore.explain.data import EmbeddingTrace, LayerTrace, NormTrace
from sentcore.layers import Encoder
from sentcore.layers.attention import Attention
from sentcore.layers.embeddings import Embeddings
from sentcore.layers.positions import Positions
from sentcore.ops.backends import ops_of
from sentcore.packed import PackedBatch


@dataclass
class _Seen:
    """What one layer's modules were given and gave in a pass, [T, H] each."""

    given: torch.Tensor | None = None
    into_attention: torch.Tensor | None = None
    attended: torch.Tensor | None = None
    into_feed_forward: torch.Tensor | None = None
    fed_forward: torch.Tensor | None = None


class Recorder:
    """A context in which one pass of one sentence through the encoder is recorded.

    Nothing is computed a second time in another way: hooks stand on whole layers, attentions and feed-forward networks, which
    run their ops as without them; queries, keys and values come from the attention's own projection, and probabilities from
    its own op (see `_probabilities`).

    Args:
        encoder: in eval mode.
        keep: tokens of which rows are kept.
    """

    def __init__(self, encoder: Encoder, keep: int) -> None:
        self._encoder, self._keep = encoder, keep
        self._handles: list = []
        self._seen = _Seen()
        self.embeddings: EmbeddingTrace | None = None
        self.hidden_states: list[torch.Tensor] = []
        self.layers: list[LayerTrace] = []
        self.norms: list[NormTrace] = []
        self._last: torch.Tensor | None = None

    def __enter__(self) -> Recorder:
        encoder = self._encoder
        hook = self._handles.append
        hook(encoder.embeddings.register_forward_hook(self._see_embeddings))
        for layer in encoder.layers:  # ALBERT's shared ones come once here and are called several times
            hook(layer.register_forward_pre_hook(self._see_given))
            hook(layer.attention.register_forward_hook(self._see_attention))
            hook(layer.feed_forward.register_forward_hook(self._see_feed_forward))
            hook(layer.register_forward_hook(self._see_layer))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def finish(self, output: torch.Tensor) -> None:
        """Takes what the encoder gave, [T, H]: behind the final LayerNorm, where there is one."""
        if self._encoder.final_norm is not None and self._last is not None:
            self._norm("final", self._last, output)
            self.hidden_states[-1] = self._rows(output)

    def _see_embeddings(self, module: Embeddings, args: tuple, out: torch.Tensor) -> None:
        batch: PackedBatch = args[0]
        word = module.word_embeddings(batch.token_ids)
        tables = (module.position_embeddings, module.token_type_embeddings)
        ids = (batch.position_ids + module.position_offset, batch.token_type_ids)
        position, token_type = (None if table is None else table(i) for table, i in zip(tables, ids, strict=True))
        total = sum((rows for rows in (position, token_type) if rows is not None), word)
        normed = out if module.projection is None else module.layer_norm(total)
        self.embeddings = EmbeddingTrace(
            self._rows(word),
            None if position is None else self._rows(position),
            None if token_type is None else self._rows(token_type),
            self._rows(total),
            self._rows(normed),
        )
        self._norm("embeddings", total, normed)
        self.hidden_states.append(self._rows(out))

    def _see_given(self, layer: nn.Module, args: tuple) -> None:
        self._seen = _Seen(given=args[0])

    def _see_attention(self, attention: Attention, args: tuple, out: torch.Tensor) -> None:
        x, batch, positions = args
        self._seen.into_attention, self._seen.attended = x, out
        qkv = attention.project(x, positions.rotary)
        query, key, value = (rows.transpose(0, 1) for rows in self._rows(qkv).unbind(1))
        probabilities = _probabilities(attention, qkv, batch, positions, self._keep)
        sliding = positions.window is not None
        self.layers.append(LayerTrace(query, key, value, _host(probabilities), sliding))

    def _see_feed_forward(self, module: nn.Module, args: tuple, out: torch.Tensor) -> None:
        self._seen.into_feed_forward, self._seen.fed_forward = args[0], out

    def _see_layer(self, layer: nn.Module, args: tuple, out: torch.Tensor) -> None:
        seen = self._seen
        name = f"layer {len(self.layers) - 1}"
        if not layer.norm_first:
            self._norm(f"{name} attention", seen.given + seen.attended, seen.into_feed_forward)
            self._norm(f"{name} feed-forward", seen.into_feed_forward + seen.fed_forward, out)
        else:
            if layer.attention.layer_norm is not None:
                self._norm(f"{name} attention", seen.given, seen.into_attention)
            self._norm(f"{name} feed-forward", seen.given + seen.attended, seen.into_feed_forward)
        self.hidden_states.append(self._rows(out))
        self._last = out

    def _norm(self, name: str, before: torch.Tensor, after: torch.Tensor) -> None:
        lengths = (_host(torch.linalg.vector_norm(rows.float(), dim=1)) for rows in (before, after))
        self.norms.append(NormTrace(name, *lengths))

    def _rows(self, x: torch.Tensor) -> torch.Tensor:
        return _host(x[: self._keep])


def _host(x: torch.Tensor) -> torch.Tensor:
    return x.detach().to(device="cpu", dtype=torch.float32, copy=True)


def _probabilities(
    attention: Attention, qkv: torch.Tensor, batch: PackedBatch, positions: Positions, keep: int
) -> torch.Tensor:
    """[N, t, t] of the first tokens of one sentence, from [T, 3, N, D].

    The attention's own op, with unit vectors in the place of values: where key j's value is 1 in column c alone, column c of
    a query's result is its probability of j. D keys are read at once.
    """
    size = qkv.shape[3]
    columns = []
    for first in range(0, keep, size):
        width = min(size, keep - first)
        probe = qkv.clone()
        probe[:, 2] = 0
        probe[first : first + width, 2, :, :width] = torch.eye(width, dtype=qkv.dtype, device=qkv.device)[:, None]
        out = ops_of(attention.backend).varlen_attention(
            probe,
            batch.cu_seqlens,
            batch.max_seqlen,
            bias=positions.bias,
            alibi_slopes=positions.alibi_slopes,
            window=positions.window,
        )
        columns.append(out[:keep, :, :width])
    return torch.cat(columns, dim=2).transpose(0, 1)
