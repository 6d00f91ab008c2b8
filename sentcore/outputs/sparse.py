"""A weight for each token id of a sentence: bge-m3's sparse head, and sentences as such dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from sentcore.errors import ArgumentTypeError
from sentcore.ops.inference_linear import InferenceLinear, usable
from sentcore.ops.plain import is_plain
from sentcore.outputs.specs import LinearSpec
from sentcore.packed import PackedBatch

SparseDict = Mapping[int, float]


class SparseRows(NamedTuple):
    """B sparse rows, one after the other; within a row token ids ascend.

    Attributes:
        token_ids: [K] int64.
        weights: [K] float32, above 0 (NaN is kept, to be reported).
        lengths: [B] int64, entries of each row.
    """

    token_ids: torch.Tensor
    weights: torch.Tensor
    lengths: torch.Tensor

    def dicts(self) -> list[dict[int, float]]:
        """{token id: weight} for every row."""
        ids, weights = self.token_ids.tolist(), self.weights.tolist()
        rows, first = [], 0
        for length in self.lengths.tolist():
            last = first + length
            rows.append(dict(zip(ids[first:last], weights[first:last], strict=True)))
            first = last
        return rows


class SparseLinear(nn.Module):
    """The largest relu(linear(h)) of every token id of a sentence (Chen et al. 2024, https://arxiv.org/abs/2402.03216).

    Args:
        spec: weight [1, H] and bias [1].
        left_out: ids that get no weight: the special tokens'.
    """

    def __init__(self, spec: LinearSpec, left_out: Sequence[int], backend: str = "auto") -> None:
        super().__init__()
        self.backend = backend
        self.linear = spec.module()
        self.register_buffer("left_out", torch.tensor(sorted(left_out), dtype=torch.int64), persistent=False)
        self._packed = InferenceLinear()

    def forward(self, x: torch.Tensor, batch: PackedBatch) -> SparseRows:
        """[T, H] -> the rows of B sentences, computed in the head's dtype, float32."""
        x = x.to(self.linear.weight.dtype)
        product = (
            self._packed(x, (self.linear,)) if usable(x, self.backend) and is_plain(self.linear) else self.linear(x)
        )
        weights = torch.relu(product).flatten()
        sentences = batch.num_sentences
        of_token = torch.repeat_interleave(batch.cu_seqlens.diff().long(), output_size=batch.num_tokens)
        # One key for a sentence and an id: the same id twice in a sentence is the same key.
        width = int(batch.token_ids.max()) + 1 if batch.num_tokens else 1
        keys, place = torch.unique(of_token * width + batch.token_ids, return_inverse=True)
        largest = weights.new_zeros(len(keys)).scatter_reduce(0, place, weights, "amax")
        ids = keys % width
        keep = ~(largest <= 0) & ~torch.isin(ids, self.left_out)
        rows = (keys // width)[keep]
        return SparseRows(ids[keep], largest[keep], torch.bincount(rows, minlength=sentences))


def sparse_similarity(a: SparseDict | Sequence[SparseDict], b: SparseDict | Sequence[SparseDict]):
    """Products of the weights of shared token ids, summed.

    Args:
        a, b: a dict {token id: weight}, or a list of such.

    Returns:
        A float for two dicts, else [A, B] float32.

    Raises:
        ArgumentTypeError: something else than dicts.
    """
    rows, columns = _dicts("a", a), _dicts("b", b)
    where: dict[int, tuple[list[int], list[float]]] = {}
    for column, row in enumerate(columns):
        for token, weight in row.items():
            places, weights = where.setdefault(token, ([], []))
            places.append(column)
            weights.append(weight)
    # An id stands once in a dict, so no place comes twice in one addition.
    postings = {token: (np.array(places), np.array(weights)) for token, (places, weights) in where.items()}
    scores = np.zeros((len(rows), len(columns)))
    for score, row in zip(scores, rows, strict=True):
        for token in row.keys() & postings.keys():
            places, weights = postings[token]
            score[places] += row[token] * weights
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return float(scores[0, 0])
    return torch.from_numpy(scores).float()


def _dicts(name: str, value: object) -> list[SparseDict]:
    rows = [value] if isinstance(value, Mapping) else value
    if not isinstance(rows, (list, tuple)) or not all(isinstance(row, Mapping) for row in rows):
        raise ArgumentTypeError(
            f"{name} is of type {type(value).__name__}; accepted: a dict {{token id: weight}} or a list of such, as "
            "encode(..., output_value='sparse') gives them"
        )
    return list(rows)
