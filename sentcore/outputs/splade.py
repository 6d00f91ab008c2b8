"""A weight for every token of the vocabulary: a masked-LM head, and SPLADE's pooling of its logits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import nn

from sentcore.ops.backends import ops_of
from sentcore.ops.inference_linear import InferenceLinear, usable
from sentcore.ops.plain import is_plain
from sentcore.outputs.dense import ACTIVATE
from sentcore.outputs.sparse import SparseRows
from sentcore.outputs.specs import LinearSpec, SpladeSpec
from sentcore.packed import PackedBatch

LOGITS = {"cpu": 2**24}  # logits held at once, float32: 64 MiB
LOGITS_ELSEWHERE = 2**27


class Splade(nn.Module):
    """The largest, or the sum, of log(1 + relu(logits)) over a sentence's tokens.

    Formal et al. 2021, https://arxiv.org/abs/2107.05720 (sum) and https://arxiv.org/abs/2109.10086 (max); a second log1p is
    that of https://arxiv.org/abs/2504.14839.

    Args:
        spec: the head's tensors, its activation and the pooling.
        tied: the encoder's word embeddings [V, H] in float32, the decoder's weight where the spec brings none.
    """

    def __init__(self, spec: SpladeSpec, tied: nn.Parameter, backend: str = "auto") -> None:
        super().__init__()
        self.spec = spec.settings()
        self.backend = backend
        self.dense = spec.dense.module()
        width = spec.dense.weight.shape[0]
        self.norm = nn.LayerNorm(width, spec.eps, bias=spec.norm.bias is not None)
        self.tied = spec.decoder is None
        self.decoder = LinearSpec(tied if self.tied else spec.decoder, spec.decoder_bias).module()
        with torch.no_grad():
            self.norm.weight.copy_(spec.norm.weight)
            if spec.norm.bias is not None:
                self.norm.bias.copy_(spec.norm.bias)
        self._packed_dense, self._packed_decoder = InferenceLinear(), InferenceLinear()

    def forward(self, x: torch.Tensor, batch: PackedBatch) -> SparseRows:
        """[T, H] -> the rows of B sentences, computed in the head's dtype, float32."""
        x = self._transform(x.to(self.dense.weight.dtype))
        starts = batch.cu_seqlens.tolist()
        parts = [self._entries(pooled) for pooled in self._pooled(x, starts)]
        if not parts:
            none = batch.token_ids.new_empty(0)
            return SparseRows(none, x.new_empty(0), none)
        return SparseRows(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _transform(self, x: torch.Tensor) -> torch.Tensor:
        """[T, H] -> [T, H], LayerNorm(act(dense(x)))."""
        ops, norm, act = ops_of(self.backend), self.norm, self.spec.activation
        if not is_plain(self.dense, norm):
            return norm(ACTIVATE[act](self.dense(x)))
        packed = usable(x, self.backend)
        if act == "gelu":
            bias = self.dense.bias
            product = self._packed_dense(x, (self.dense,)) if packed else ops.linear(x, self.dense.weight, None)
            return ops.bias_gelu_layer_norm(product, None if packed else bias, norm.weight, norm.bias, norm.eps)
        if packed:
            activated = self._packed_dense(x, (self.dense,), act)
        else:
            activated = ops.linear(x, self.dense.weight, self.dense.bias, activation=act)
        return ops.add_layer_norm(activated, None, norm.weight, norm.bias, eps=norm.eps)

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        if not is_plain(self.decoder):
            return self.decoder(x)
        if usable(x, self.backend):
            return self._packed_decoder(x, (self.decoder,))
        return ops_of(self.backend).linear(x, self.decoder.weight, self.decoder.bias)

    def _pooled(self, x: torch.Tensor, starts: list[int]) -> Iterator[torch.Tensor]:
        """[sentences, V] for consecutive sentences, each before its activation where the largest is taken.

        A block of sentences has as many tokens as the budget allows logits; of a sentence longer than that a slice at a time
        is computed and reduced. Slices start where the sentence does: what else is in the batch does not change its sum.
        """
        budget = LOGITS.get(x.device.type, LOGITS_ELSEWHERE)
        rows = max(1, budget // self.decoder.weight.shape[0])
        first, count = 0, len(starts) - 1
        while first < count:
            last = first + 1
            while last < count and starts[last + 1] - starts[first] <= rows:
                last += 1
            if starts[last] - starts[first] <= rows:
                logits = self._logits(x[starts[first] : starts[last]])
                here = [start - starts[first] for start in starts[first : last + 1]]
                yield torch.stack([self._reduce(logits[a:b]) for a, b in pairwise(here)])
            else:
                row = None
                for begin in range(starts[first], starts[last], rows):
                    part = self._reduce(self._logits(x[begin : min(begin + rows, starts[last])]))
                    row = part if row is None else torch.maximum(row, part) if self.spec.takes_max else row + part
                yield row[None]
            first = last

    def _reduce(self, logits: torch.Tensor) -> torch.Tensor:
        """[t, V] -> [V]. The activation grows with its input, so it may follow the largest, and is computed once."""
        if not len(logits):
            return logits.new_zeros(logits.shape[1])
        return logits.amax(dim=0) if self.spec.takes_max else self._activate(logits).sum(dim=0)

    def _activate(self, logits: torch.Tensor) -> torch.Tensor:
        weights = torch.log1p(torch.relu(logits))
        return torch.log1p(weights) if self.spec.activation_function == "log1p_relu" else weights

    def _entries(self, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """[b, V] -> token ids, weights and lengths of b rows."""
        weights = self._activate(pooled) if self.spec.takes_max else pooled
        keep = ~(weights <= 0)  # NaN is kept, to be reported
        return keep.nonzero()[:, 1], weights[keep], keep.sum(dim=1)
