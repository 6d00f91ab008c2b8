"""Linear layers in 8 bits: what an encoder's become for inference on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from sentcore.errors import ArgumentValueError
from sentcore.ops import Int8Weight, quantize_weight
from sentcore.ops.backends import ops_of


class Int8Linear(nn.Module):
    """One linear layer, or several of one input side by side, with weights in 8 bits and a scale per output.

    Args:
        linears: of the same input size K; their outputs, R in all, come one after the other.
        backend: "auto", "native" or "reference".
    """

    def __init__(self, linears: Sequence[nn.Linear], backend: str = "auto") -> None:
        super().__init__()
        self.backend = backend
        weight = quantize_weight(torch.cat([linear.weight.detach().float() for linear in linears]))
        biases = [
            linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias for linear in linears
        ]
        self.register_buffer("values", weight.values)
        self.register_buffer("scale", weight.scale)
        self.register_buffer("bias", torch.cat(biases).detach().float())

    def forward(self, x: torch.Tensor, activation: str | None = None) -> torch.Tensor:
        """[T, K] -> [T, R] in x's dtype, activated."""
        weight = Int8Weight(self.values, self.scale)
        return ops_of(self.backend).int8_linear(x, weight, self.bias, activation=activation)

    def packed_weights(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """values, scale [R] and bias [R], as `encoder_layers` takes them."""
        return self.values, self.scale, self.bias

    def train(self, mode: bool = True) -> Int8Linear:
        """Only False: rounded weights cannot be trained."""
        if mode:
            raise ArgumentValueError("train(True) on an int8 model; accepted: inference. Load it with dtype='float32'")
        return super().train(mode)

    def _apply(self, fn: Callable, recurse: bool = True) -> Int8Linear:
        """Moves with the module, but scale and bias stay float32 whatever the module is converted to."""
        scale, bias = self.scale, self.bias
        super()._apply(fn, recurse)
        self.scale, self.bias = scale.to(self.values.device), bias.to(self.values.device)
        return self
