"""linear_add_layer_norm for torch: schema, shapes, plain kernel. It has no gradient: training needs what lies between."""

from __future__ import annotations

from sentcore.ops.linear_add_layer_norm import reference
from sentcore.ops.register import define


def _forward(x, weight, bias, residual, norm_weight, norm_bias, eps):
    return reference.linear_add_layer_norm(x, weight, bias, residual, norm_weight, norm_bias, eps=eps)


def _forward_fake(x, weight, bias, residual, norm_weight, norm_bias, eps):
    return x.new_empty((x.shape[0], weight.shape[0]))


define(
    "linear_add_layer_norm(Tensor x, Tensor weight, Tensor? bias, Tensor residual, Tensor norm_weight, Tensor? norm_bias, "
    "float eps) -> Tensor",
    _forward,
    _forward_fake,
)
