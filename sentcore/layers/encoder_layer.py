"""One Transformer layer: attention and feed-forward with their residuals and LayerNorms, in either order."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sentcore.config import EncoderConfig
from sentcore.layers.attention import Attention
from sentcore.layers.feed_forward import FeedForward
from sentcore.layers.fused_norm import attention_and_norm, feed_forward_and_norm
from sentcore.layers.positions import NOWHERE, Positions
from sentcore.layers.whole_layer import whole_layer
from sentcore.ops import draw_seed
from sentcore.ops.backends import ops_of
from sentcore.ops.plain import is_plain
from sentcore.packed import PackedBatch


class EncoderLayer(nn.Module):
    """x = LayerNorm(x + attention(x)); x = LayerNorm(x + feed_forward(x)) (Vaswani et al. 2017), or with norm_first
    x = x + attention(LayerNorm(x)); x = x + feed_forward(LayerNorm(x)) (Xiong et al. 2020, https://arxiv.org/abs/2002.04745).

    Args:
        config, backend: the encoder's.
        is_first: with norm_first, the first layer's attention has no LayerNorm, as the embeddings have just had one.
    """

    def __init__(self, config: EncoderConfig, backend: str = "auto", *, is_first: bool = False) -> None:
        super().__init__()
        self.backend = backend
        self.norm_first = config.norm_first
        self.dropout_p = config.hidden_dropout_prob
        self.attention = Attention(config, backend, has_norm=not (config.norm_first and is_first))
        self.feed_forward = FeedForward(config, backend)

    def forward(self, x: torch.Tensor, batch: PackedBatch, positions: Positions = NOWHERE) -> torch.Tensor:
        """[T, H] -> [T, H]."""
        whole = whole_layer(self, x, batch, positions)
        if whole is not None:
            return whole
        if not self.norm_first and (after := attention_and_norm(self.attention, x, batch, positions)) is not None:
            return self._after_norm(after)
        return self._after_attention(x, self.attention(self._before_attention(x), batch, positions))

    def of_rows(
        self, x: torch.Tensor, rows: torch.Tensor, batch: PackedBatch, positions: Positions = NOWHERE
    ) -> torch.Tensor:
        """[T, H], [B] int64, one row of each sentence -> [B, H], `forward` at these rows."""
        return self._after_attention(x[rows], self.attention.of_rows(self._before_attention(x), rows, batch, positions))

    def _before_attention(self, x: torch.Tensor) -> torch.Tensor:
        norm = self.attention.layer_norm
        if not self.norm_first or norm is None:
            return x
        if not is_plain(norm):
            return norm(x)
        return ops_of(self.backend).add_layer_norm(x, None, norm.weight, norm.bias, eps=norm.eps)

    def _after_attention(self, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        if not self.norm_first:
            return self._after_norm(self._add_norm(attended, x, self.attention.layer_norm))
        normed, total = self._add_norm(attended, x, self.feed_forward.layer_norm, return_total=True)
        out = self.feed_forward(normed)
        return total + (F.dropout(out, self.dropout_p) if self.training else out)

    def _after_norm(self, x: torch.Tensor) -> torch.Tensor:
        out = feed_forward_and_norm(self.feed_forward, x)
        return self._add_norm(self.feed_forward(x), x, self.feed_forward.layer_norm) if out is None else out

    def _add_norm(self, x: torch.Tensor, residual: torch.Tensor, norm: nn.LayerNorm, return_total: bool = False):
        dropout_p = self.dropout_p if self.training else 0.0
        if not is_plain(norm):
            total = residual + F.dropout(x, dropout_p)
            return (norm(total), total) if return_total else norm(total)
        return ops_of(self.backend).add_layer_norm(
            x,
            residual,
            norm.weight,
            norm.bias,
            dropout_p=dropout_p,
            seed=draw_seed(dropout_p, None, x),
            eps=norm.eps,
            return_total=return_total,
        )
