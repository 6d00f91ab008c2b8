"""What the linear layers in 8 bits share: for inference, one or several layers side by side, scales and biases in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from sentcore.errors import ArgumentValueError


class RoundedLinear(nn.Module):
    """One linear layer, or several of one input side by side, with weights in 8 bits and a scale per output.

    Args:
        linears: of the same input size K; their outputs, R in all, come one after the other.
        backend: "auto", "native" or "reference".
    """

    KIND: str  # the dtype that a user asks for

    def __init__(self, linears: Sequence[nn.Linear], backend: str = "auto") -> None:
        super().__init__()
        self.backend = backend
        values, scale = self._rounded(torch.cat([linear.weight.detach().float() for linear in linears]))
        biases = [
            linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias for linear in linears
        ]
        self.register_buffer("values", values)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", torch.cat(biases).detach().float())

    @staticmethod
    def _rounded(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[R, K] float32 -> values as they are kept, scale [R] float32."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> RoundedLinear:
        """Only False: rounded weights cannot be trained."""
        if mode:
            raise ArgumentValueError(
                f"train(True) on an {self.KIND} model; accepted: inference. Load it with dtype='float32'"
            )
        return super().train(mode)

    def _apply(self, fn: Callable, recurse: bool = True) -> RoundedLinear:
        """Moves with the module, but scale and bias stay float32 whatever the module is converted to."""
        scale, bias = self.scale, self.bias
        super()._apply(fn, recurse)
        self.scale, self.bias = scale.to(self.values.device), bias.to(self.values.device)
        return self
