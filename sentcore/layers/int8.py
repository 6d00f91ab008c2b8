"""Linear layers in 8 bits: what an encoder's become for inference on a CPU."""

from __future__ import annotations

import torch

from sentcore.layers.rounded import RoundedLinear
from sentcore.ops import Int8Weight, quantize_weight
from sentcore.ops.backends import ops_of


class Int8Linear(RoundedLinear):
    """Weights as integers of 8 bits."""

    KIND = "int8"

    @staticmethod
    def _rounded(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rounded = quantize_weight(weight)
        return rounded.values, rounded.scale

    def forward(self, x: torch.Tensor, activation: str | None = None) -> torch.Tensor:
        """[T, K] -> [T, R] in x's dtype, activated."""
        weight = Int8Weight(self.values, self.scale)
        return ops_of(self.backend).int8_linear(x, weight, self.bias, activation=activation)

    def packed_weights(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """values, scale [R] and bias [R], as `encoder_layers` takes them."""
        return self.values, self.scale, self.bias
