"""int8_linear for torch: schema, shapes, plain kernel. It has no gradient: 8 bits are for inference."""

from __future__ import annotations

from sentcore.ops.int8_linear import reference
from sentcore.ops.register import define


def _forward(x, weight, scale, bias, activation):
    return reference.int8_linear(x, reference.Int8Weight(weight, scale), bias, activation=activation)


def _forward_fake(x, weight, scale, bias, activation):
    return x.new_empty((x.shape[0], scale.shape[0]))


define(
    "int8_linear(Tensor x, Tensor weight, Tensor scale, Tensor? bias, str activation) -> Tensor",
    _forward,
    _forward_fake,
)
