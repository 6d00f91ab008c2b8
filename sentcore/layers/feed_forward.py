"""The feed-forward network with its residual and LayerNorm."""

from __future__ import annotations

import torch
from torch import nn

from sentcore.config import EncoderConfig
from sentcore.layers.int8 import Int8Linear
from sentcore.ops import draw_seed
from sentcore.ops.backends import ops_of
from sentcore.ops.inference_linear import InferenceLinear, usable


class FeedForward(nn.Module):
    """LayerNorm(x + dropout(down(act(up(x))))) (Vaswani et al. 2017, section 3.3)."""

    def __init__(self, config: EncoderConfig, backend: str = "auto") -> None:
        super().__init__()
        self.backend = backend
        self.hidden_act = config.hidden_act
        self.dropout_p = config.hidden_dropout_prob
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self._packed_up, self._packed_down = InferenceLinear(), InferenceLinear()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[T, H] -> [T, H]."""
        ops = ops_of(self.backend)
        dropout_p = self.dropout_p if self.training else 0.0
        return ops.add_layer_norm(
            self._transform(x),
            x,
            self.layer_norm.weight,
            self.layer_norm.bias,
            dropout_p=dropout_p,
            seed=draw_seed(dropout_p, None, x),
            eps=self.layer_norm.eps,
        )

    def to_int8(self) -> None:
        """Its linear layers in 8 bits."""
        self.up, self.down = (Int8Linear((linear,), self.backend) for linear in (self.up, self.down))

    def packed_weights(self) -> tuple[torch.Tensor, ...]:
        """Values, scale and bias of both linear layers, as `encoder_layers` takes them."""
        if isinstance(self.up, Int8Linear):
            return *self.up.packed_weights(), *self.down.packed_weights()
        return *self._packed_up.packed_weights((self.up,)), *self._packed_down.packed_weights((self.down,))

    def _transform(self, x: torch.Tensor) -> torch.Tensor:
        """down(act(up(x))), [T, H] -> [T, H]."""
        if isinstance(self.up, Int8Linear):
            return self.down(self.up(x, self.hidden_act))
        if usable(x, self.backend):
            return self._packed_down(self._packed_up(x, (self.up,), self.hidden_act), (self.down,))
        linear = ops_of(self.backend).linear
        inner = linear(x, self.up.weight, self.up.bias, activation=self.hidden_act)
        return linear(inner, self.down.weight, self.down.bias)
