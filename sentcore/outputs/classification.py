"""Token features to label scores: the classification heads of all families, which differ in data alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sentcore.errors import ArgumentValueError
from sentcore.ops import segment_pooling
from sentcore.ops.backends import check_backend, ops_of
from sentcore.ops.inference_linear import InferenceLinear, usable
from sentcore.ops.plain import is_plain
from sentcore.outputs.dense import ACTIVATE
from sentcore.outputs.specs import HEAD_POOLINGS, ClassificationHeadSpec


class ClassificationHead(nn.Module):
    """output(norm(act(dense(x)))) of one feature a sentence (Devlin et al. 2018, section 4.1), in float32."""

    def __init__(self, spec: ClassificationHeadSpec, backend: str = "auto") -> None:
        super().__init__()
        for name, accepted in (("activation", ACTIVATE), ("pooling", HEAD_POOLINGS)):
            if getattr(spec, name) not in accepted:
                raise ArgumentValueError(f"{name} is {getattr(spec, name)!r}; accepted: {', '.join(accepted)}")
        self.spec = spec
        self.backend = check_backend(backend)
        self.dense = nn.Linear(spec.hidden_size, spec.hidden_size, bias=spec.dense_bias)
        self.norm = nn.LayerNorm(spec.hidden_size, spec.norm_eps, bias=spec.norm_bias) if spec.norm else None
        self.output = nn.Linear(spec.hidden_size, spec.num_labels)
        self._packed = {name: InferenceLinear() for name in ("dense", "output")}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, H] -> [B, num_labels], before any activation of the scores."""
        spec, norm = self.spec, self.norm
        x = x.to(self.dense.weight.dtype)
        if spec.dropout_before_dense:
            x = F.dropout(x, spec.dropout_prob, self.training)
        x = ACTIVATE[spec.activation](self._linear("dense", x))
        if norm is not None and not is_plain(norm):
            x = norm(x)
        elif norm is not None:
            x = ops_of(self.backend).add_layer_norm(x, None, norm.weight, norm.bias, eps=norm.eps)
        return self._linear("output", F.dropout(x, spec.dropout_prob, self.training))

    def mean(self, tokens: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
        """[T, H] -> [B, H], what a head with the pooling "mean" works on."""
        return segment_pooling(tokens, cu_seqlens, mode="mean")

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        linear = getattr(self, name)
        return self._packed[name](x, (linear,)) if usable(x, self.backend) and is_plain(linear) else linear(x)
