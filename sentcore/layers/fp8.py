"""Linear layers in 8-bit floating point: what an encoder's become for inference on GPUs that multiply it."""

from __future__ import annotations

import torch

from sentcore.layers.rounded import RoundedLinear
from sentcore.ops import Fp8Weight, quantize_weight_fp8
from sentcore.ops.backends import ops_of


class Fp8Linear(RoundedLinear):
    """Weights in e4m3."""

    KIND = "fp8"

    @staticmethod
    def _rounded(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rounded = quantize_weight_fp8(weight)
        # As bytes: a pickled e4m3 tensor cannot be read again (torch 2.13), and conversions of the module pass them by.
        return rounded.values.view(torch.uint8), rounded.scale

    def forward(self, x: torch.Tensor, activation: str | None = None) -> torch.Tensor:
        """[T, K] -> [T, R], or [T, R/2] for a gated activation, in x's dtype, activated."""
        weight = Fp8Weight(self.values.view(torch.float8_e4m3fn), self.scale)
        return ops_of(self.backend).fp8_linear(x, weight, self.bias, activation=activation)
