"""Self-attention with its output projection, residual and LayerNorm."""

from __future__ import annotations

import torch
from torch import nn

from sentcore.config import EncoderConfig
from sentcore.layers.int8 import Int8Linear
from sentcore.ops import draw_seed
from sentcore.ops.backends import ops_of
from sentcore.ops.inference_linear import InferenceLinear, usable
from sentcore.packed import PackedBatch


class Attention(nn.Module):
    """LayerNorm(x + dropout(output(attention(x)))) (Vaswani et al. 2017).

    Queries, keys and values stay three nn.Linear, so that adapters and optimizers find the modules they know; the
    projection reads the three weights in one op.
    """

    def __init__(self, config: EncoderConfig, backend: str = "auto") -> None:
        super().__init__()
        self.backend = backend
        self.num_heads = config.num_attention_heads
        self.attention_dropout_p = config.attention_probs_dropout_prob
        self.hidden_dropout_p = config.hidden_dropout_prob
        hidden = config.hidden_size
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, hidden)
        self.layer_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self._packed_qkv, self._packed_output = InferenceLinear(), InferenceLinear()

    def forward(self, x: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        """[T, H] -> [T, H]."""
        ops = ops_of(self.backend)
        attention_p = self.attention_dropout_p if self.training else 0.0
        hidden_p = self.hidden_dropout_p if self.training else 0.0
        qkv = self._project(x)
        context = ops.varlen_attention(
            qkv,
            batch.cu_seqlens,
            batch.max_seqlen,
            dropout_p=attention_p,
            seed=draw_seed(attention_p, None, x),
        )
        return ops.add_layer_norm(
            self._output(context.flatten(1)),
            x,
            self.layer_norm.weight,
            self.layer_norm.bias,
            dropout_p=hidden_p,
            seed=draw_seed(hidden_p, None, x),
            eps=self.layer_norm.eps,
        )

    def to_int8(self) -> None:
        """Its linear layers in 8 bits; queries, keys and values become one, `qkv`."""
        self.qkv = Int8Linear((self.query, self.key, self.value), self.backend)
        self.query = self.key = self.value = None
        self.output = Int8Linear((self.output,), self.backend)

    def packed_weights(self) -> tuple[torch.Tensor, ...]:
        """Values, scale and bias of the projection and of what follows the attention, as `encoder_layers` takes them."""
        if self.query is None:
            return *self.qkv.packed_weights(), *self.output.packed_weights()
        linears = (self.query, self.key, self.value)
        return *self._packed_qkv.packed_weights(linears), *self._packed_output.packed_weights((self.output,))

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        """[T, H] -> [T, 3, N, D]."""
        if self.query is None:
            return self.qkv(x).view(x.shape[0], 3, self.num_heads, x.shape[1] // self.num_heads)
        linears = (self.query, self.key, self.value)
        if usable(x, self.backend):
            return self._packed_qkv(x, linears).view(x.shape[0], 3, self.num_heads, x.shape[1] // self.num_heads)
        weights, biases = zip(*((linear.weight, linear.bias) for linear in linears), strict=True)
        return ops_of(self.backend).qkv_projection(x, weights, biases, num_heads=self.num_heads)

    def _output(self, context: torch.Tensor) -> torch.Tensor:
        """[T, H] -> [T, H]."""
        if isinstance(self.output, Int8Linear):
            return self.output(context)
        if usable(context, self.backend):
            return self._packed_output(context, (self.output,))
        return ops_of(self.backend).linear(context, self.output.weight, self.output.bias)
