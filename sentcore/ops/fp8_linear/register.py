"""fp8_linear for torch: schemas, shapes, plain kernels. It has no gradient: 8 bits are for inference."""

from __future__ import annotations

import torch

from sentcore.ops.fp8_linear import reference
from sentcore.ops.register import define

_GATED = ("geglu", "swiglu")


def _forward(x, weight, scale, bias, activation):
    return reference.fp8_linear(x, reference.Fp8Weight(weight, scale), bias, activation=activation)


def _forward_fake(x, weight, scale, bias, activation):
    return x.new_empty((x.shape[0], scale.shape[0] // (2 if activation in _GATED else 1)))


def _rows_fake(x):
    pitch = (x.shape[1] + reference.DEPTH - 1) // reference.DEPTH * reference.DEPTH
    values = x.new_empty((x.shape[0], pitch), dtype=torch.float8_e4m3fn)
    return values, x.new_empty(x.shape[0], dtype=torch.float32)


define(
    "fp8_linear(Tensor x, Tensor weight, Tensor scale, Tensor? bias, str activation) -> Tensor",
    _forward,
    _forward_fake,
)
define("fp8_rows(Tensor x) -> (Tensor values, Tensor scale)", reference.fp8_rows, _rows_fake)
