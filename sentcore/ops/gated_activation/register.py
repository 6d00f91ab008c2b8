"""gated_activation for torch: schema, shapes, plain kernel. It has no gradient: `linear` is what training takes."""

from __future__ import annotations

from sentcore.ops.gated_activation import reference
from sentcore.ops.register import define


def _forward(x, activation):
    return reference.gated_activation(x, activation=activation)


def _forward_fake(x, activation):
    return x.new_empty((x.shape[0], x.shape[1] // 2))


define("gated_activation(Tensor x, str activation) -> Tensor", _forward, _forward_fake)
