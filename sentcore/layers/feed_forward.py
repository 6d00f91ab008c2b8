"""The feed-forward network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sentcore.config import EncoderConfig
from sentcore.layers.fp8 import Fp8Linear
from sentcore.layers.int8 import Int8Linear
from sentcore.layers.rounded import RoundedLinear
from sentcore.ops.backends import ops_of
from sentcore.ops.inference_linear import InferenceLinear, usable
from sentcore.ops.plain import is_plain


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
        self.gate: nn.Module | None = None  # [T, H] -> [T, F], activated, where another model keeps it apart from `up`
        self.down = nn.Linear(inner, config.hidden_size, bias=config.down_bias)
        self.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps, bias=config.norm_bias)
        self.packs_weights = True  # for inference; not where another library's code may write to them unseen
        self._packed_up, self._packed_down = InferenceLinear(), InferenceLinear()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[T, H] -> [T, H]."""
        dropped = self.training and self.intermediate_dropout_p
        if x.device.type == "cpu" and torch.is_grad_enabled() and not dropped and is_plain(self.down, *self._first()):
            # On a GPU the activation rides on the product before it; a CPU has no such kernel, and saves memory instead.
            pre = self._product(x, None)
            return ops_of(self.backend).activation_linear(
                pre, self.down.weight, self.down.bias, activation=self.activation
            )
        inner = self.inner(x)
        if dropped:
            inner = F.dropout(inner, self.intermediate_dropout_p)
        if not is_plain(self.down):
            return self.down(inner)
        if self.packs_weights and usable(inner, self.backend):
            return self._packed_down(inner, (self.down,))
        return ops_of(self.backend).linear(inner, self.down.weight, self.down.bias)

    def round_weights(self, kind: type[RoundedLinear]) -> None:
        """Its linear layers in 8 bits, of that kind."""
        self.up, self.down = (kind((linear,), self.backend) for linear in (self.up, self.down))

    def packed_weights(self) -> tuple[torch.Tensor, ...]:
        """Values, scale and bias of both linear layers, as `encoder_layers` takes them."""
        if isinstance(self.up, Int8Linear):
            return *self.up.packed_weights(), *self.down.packed_weights()
        return *self._packed_up.packed_weights((self.up,)), *self._packed_down.packed_weights((self.down,))

    def inner(self, x: torch.Tensor) -> torch.Tensor:
        """act(up(x)), [T, H] -> [T, F]."""
        linears = self._first()
        act = None if self.gated else self.hidden_act
        if isinstance(self.up, Fp8Linear):
            return self.up(x, self.activation)
        if isinstance(self.up, Int8Linear):
            inner = self.up(x, act)
        elif not is_plain(*linears):
            inner = torch.cat([linear(x) for linear in linears], dim=-1)
            if not self.gated or x.device.type != "cpu" or torch.is_grad_enabled():
                return _activated(inner, self.activation)
        elif self.packs_weights and usable(x, self.backend):
            inner = self._packed_up(x, linears, act)
        else:
            return self._product(x, self.activation)
        # By a kernel of its own: torch computes the ends of rows and of a thread's share by other code than the rest.
        return ops_of(self.backend).gated_activation(inner, activation=self.activation) if self.gated else inner

    def _first(self) -> tuple[nn.Module, ...]:
        """What makes the product that is activated."""
        return (self.up,) if self.gate is None else (self.gate, self.up)

    def _product(self, x: torch.Tensor, activation: str | None) -> torch.Tensor:
        """act(up(x)), act(gate(x)) * up(x) or, without an activation, the product [T, F] or [T, 2F]; with gradients."""
        weight, bias = self.up.weight, self.up.bias
        if self.gate is not None:
            weight = torch.cat((self.gate.weight, weight))
            bias = None if bias is None else torch.cat((self.gate.bias, bias))
        return ops_of(self.backend).linear(x, weight, bias, activation=activation)


def _activated(x: torch.Tensor, activation: str) -> torch.Tensor:
    """[T, F] -> [T, F], or [T, 2F] -> [T, F] for a gated activation, by the linear op's names; with gradients."""
    if activation in ("geglu", "swiglu"):
        first, second = x.chunk(2, dim=-1)
        return (F.gelu(first) if activation == "geglu" else F.silu(first)) * second
    if activation == "relu":
        return F.relu(x)
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")
