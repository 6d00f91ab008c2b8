"""A linear layer with an activation behind the pooling."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from sentcore.errors import ArgumentValueError
from sentcore.ops.backends import ops_of
from sentcore.ops.inference_linear import InferenceLinear, usable
from sentcore.ops.plain import is_plain
from sentcore.outputs.specs import DenseSpec

ACTIVATE = {
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
}


# Those of which torch computes whole vectors and what is left over by other code on a CPU. Where a row's elements fall would
# depend on the rows before it.
_BY_ROWS = ("gelu_tanh", "sigmoid", "silu")


class Dense(nn.Module):
    """activation(linear(x)), in float32."""

    def __init__(self, spec: DenseSpec, backend: str = "auto") -> None:
        super().__init__()
        self.backend = backend
        if spec.activation not in ACTIVATE:
            raise ArgumentValueError(f"activation is {spec.activation!r}; accepted: {', '.join(ACTIVATE)}")
        self.activation = spec.activation
        out_features, in_features = spec.weight.shape
        self.linear = nn.Linear(in_features, out_features, bias=spec.bias is not None)
        with torch.no_grad():
            self.linear.weight.copy_(spec.weight)
            if spec.bias is not None:
                self.linear.bias.copy_(spec.bias)
        self._packed = InferenceLinear()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, in_features] -> [B, out_features]."""
        product, activate = self._product(x.to(self.linear.weight.dtype)), ACTIVATE[self.activation]
        if (
            product.device.type == "cpu"
            and self.activation in _BY_ROWS
            and not torch.is_grad_enabled()
            and len(product)
        ):
            return torch.stack([activate(row) for row in product])  # a row the same bits in any batch
        return activate(product)

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        if not is_plain(self.linear):
            return self.linear(x)
        if usable(x, self.backend):
            return self._packed(x, (self.linear,))
        if x.device.type == "cuda":  # by sentcore's kernel, whose order of addition is the same for any batch
            return ops_of(self.backend).linear(x, self.linear.weight, self.linear.bias)
        return self.linear(x)
