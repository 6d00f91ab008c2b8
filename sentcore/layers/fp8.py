"""Linear layers in 8-bit floating point: what an encoder's become for inference on GPUs that multiply it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from sentcore.errors import ArgumentValueError
from sentcore.ops import Fp8Weight, quantize_weight_fp8
from sentcore.ops.backends import ops_of


class Fp8Linear(nn.Module):
    """One linear layer, or several of one input side by side, with weights in e4m3 and a scale per output.

    Args:
        linears: of the same input size K; their outputs, R in all, come one after the other.
        backend: "auto", "native" or "reference".
    """

    def __init__(self, linears: Sequence[nn.Linear], backend: str = "auto") -> None:
        super().__init__()
        self.backend = backend
        weight = quantize_weight_fp8(torch.cat([linear.weight.detach().float() for linear in linears]))
        biases = [
            linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias for linear in linears
        ]
        # As bytes: a pickled e4m3 tensor cannot be read again (torch 2.13), and conversions of the module pass them by.
        self.register_buffer("values", weight.values.view(torch.uint8))
        self.register_buffer("scale", weight.scale)
        self.register_buffer("bias", torch.cat(biases).detach().float())

    def forward(self, x: torch.Tensor, activation: str | None = None) -> torch.Tensor:
        """[T, K] -> [T, R], or [T, R/2] for a gated activation, in x's dtype, activated."""
        weight = Fp8Weight(self.values.view(torch.float8_e4m3fn), self.scale)
        return ops_of(self.backend).fp8_linear(x, weight, self.bias, activation=activation)

    def train(self, mode: bool = True) -> Fp8Linear:
        """Only False: rounded weights cannot be trained."""
        if mode:
            raise ArgumentValueError("train(True) on an fp8 model; accepted: inference. Load it with dtype='float32'")
        return super().train(mode)

    def _apply(self, fn: Callable, recurse: bool = True) -> Fp8Linear:
        """Moves with the module, but scale and bias stay float32 whatever the module is converted to."""
        scale, bias = self.scale, self.bias
        super()._apply(fn, recurse)
        self.scale, self.bias = scale.to(self.values.device), bias.to(self.values.device)
        return self
