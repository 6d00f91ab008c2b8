"""The feed-forward network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sentcore.config import EncoderConfig
from sentcore.layers.int8 import Int8Linear
from sentcore.ops.backends import ops_of
from sentcore.ops.inference_linear import InferenceLinear, usable


class FeedForward(nn.Module):
    """down(act(up(x))) (Vaswani et al. 2017, section 3.3), or gated, down(act(a) * b) with [a, b] = up(x).

    The layer around it adds, drops out and normalizes with its `layer_norm`.
    """

    def __init__(self, config: EncoderConfig, backend: str = "auto") -> None:
        super().__init__()
        self.backend = backend
        self.hidden_act, self.gated, self.activation = config.hidden_act, config.gated, config.activation
        self.intermediate_dropout_p = config.intermediate_dropout_prob
        inner = config.intermediate_size
        self.up = nn.Linear(config.hidden_size, 2 * inner if config.gated else inner, bias=config.up_bias)
        self.down = nn.Linear(inner, config.hidden_size, bias=config.down_bias)
        self.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps, bias=config.norm_bias)
        self._packed_up, self._packed_down = InferenceLinear(), InferenceLinear()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[T, H] -> [T, H]."""
        inner = self._inner(x)
        if self.training and self.intermediate_dropout_p:
            inner = F.dropout(inner, self.intermediate_dropout_p)
        if isinstance(self.down, Int8Linear):
            return self.down(inner)
        if usable(inner, self.backend):
            return self._packed_down(inner, (self.down,))
        return ops_of(self.backend).linear(inner, self.down.weight, self.down.bias)

    def to_int8(self) -> None:
        """Its linear layers in 8 bits."""
        self.up, self.down = (Int8Linear((linear,), self.backend) for linear in (self.up, self.down))

    def packed_weights(self) -> tuple[torch.Tensor, ...]:
        """Values, scale and bias of both linear layers, as `encoder_layers` takes them."""
        if isinstance(self.up, Int8Linear):
            return *self.up.packed_weights(), *self.down.packed_weights()
        return *self._packed_up.packed_weights((self.up,)), *self._packed_down.packed_weights((self.down,))

    def _inner(self, x: torch.Tensor) -> torch.Tensor:
        """act(up(x)), [T, H] -> [T, F]."""
        in_8_bits = isinstance(self.up, Int8Linear)
        if not in_8_bits and not usable(x, self.backend):
            return ops_of(self.backend).linear(x, self.up.weight, self.up.bias, activation=self.activation)
        act = None if self.gated else self.hidden_act
        inner = self.up(x, act) if in_8_bits else self._packed_up(x, (self.up,), act)
        return _gate(inner, self.hidden_act) if self.gated else inner


def _gate(x: torch.Tensor, act: str) -> torch.Tensor:
    """[T, 2F] -> [T, F]: act(first half) * second half."""
    first, second = x.chunk(2, dim=1)
    return (F.gelu(first) if act == "gelu" else F.silu(first)).mul_(second)
