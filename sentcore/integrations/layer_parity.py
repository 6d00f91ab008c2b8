"""Every hidden state of ours against transformers', so that a difference is named where it starts."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from sentcore.integrations.transformers_reference import Reference
from sentcore.packed import PackedBatch
from sentcore.sentence_encoder import SentenceEncoder


@dataclass(frozen=True)
class LayerParity:
    """How far one stage's output is from transformers'.

    Attributes:
        name: "embeddings", "layer 0" and on as `encoder.layers` counts, "final norm" where there is one, "token embeddings"
            as encode gives them (all layers in one call where that is possible), "pooling" and what follows it.
        max_abs_diff, min_cosine: over all tokens, of "pooling" over all sentences.
        accepted: what max_abs_diff may be.
        passed: whether both are accepted.
    """

    name: str
    max_abs_diff: float
    min_cosine: float
    accepted: float
    passed: bool

    def __str__(self) -> str:
        mark = "" if self.passed else "   departs"
        return f"{self.name:<18} max |Δ| {self.max_abs_diff:.2e} of {self.accepted:.2e}   min cosine {self.min_cosine:.7f}{mark}"


@dataclass
class Distance:
    """The difference between rows of ours and of transformers, gathered over batches; NaN stays NaN.

    Attributes:
        difference: the largest |a - b|.
        largest: the largest |b|.
        cosine, cosine_sum, rows: the smallest cosine between rows, the sum of all, how many.
    """

    difference: float = 0.0
    largest: float = 0.0
    cosine: float = 1.0
    cosine_sum: float = 0.0
    rows: int = field(default=0)

    def add(self, a: torch.Tensor, b: torch.Tensor) -> Distance:
        """Takes [R, E] rows of ours and of transformers' in."""
        if not a.numel():
            return self
        a, b = a.double().cpu(), b.double().cpu()
        cosines = torch.cosine_similarity(a, b, dim=1)
        self.difference = _worst(max, self.difference, float((a - b).abs().max()))
        self.largest = _worst(max, self.largest, float(b.abs().max()))
        self.cosine = _worst(min, self.cosine if self.rows else float(cosines[0]), float(cosines.min()))
        self.cosine_sum += float(cosines.sum())
        self.rows += len(a)
        return self

    @property
    def mean_cosine(self) -> float:
        """1 where there was nothing to compare."""
        return self.cosine_sum / self.rows if self.rows else 1.0

    def accepted(self, share: float) -> float:
        """What the difference may be: a share of the largest value, of 1 at least."""
        return share * max(1.0, self.largest) if self.rows else 0.0

    def judged(self, name: str, share: float, smallest: float) -> LayerParity:
        """The verdict; written so that NaN fails."""
        accepted = self.accepted(share)
        passed = self.difference <= accepted and self.cosine >= smallest
        return LayerParity(name, self.difference, self.cosine, accepted, passed)


def layer_distances(
    model: SentenceEncoder, reference: Reference, texts: list[str], other_tokens: tuple[int, ...]
) -> dict[str, Distance]:
    """Name -> distance of the hidden states of every layer, in order; texts at `other_tokens` are left out."""
    encoder = model.model.encoder
    found: dict[str, Distance] = {}
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        for first, batch in reference.batches(texts):
            count = len(batch["input_ids"])
            rows = [row for row in range(count) if first + row not in other_tokens]
            if not rows:
                continue
            mask = batch["attention_mask"].bool()
            packed = PackedBatch.from_sequences([batch["input_ids"][row][mask[row]] for row in rows]).to(model.device)
            theirs, before_norm = reference.hidden_states(batch)
            ours = _hidden_states(encoder, packed)
            if before_norm is not None and len(ours) == len(theirs) + 1:
                theirs.insert(-1, before_norm)
            for name, a, b in zip(_names(len(encoder.order()), len(ours)), ours, theirs, strict=True):
                found.setdefault(name, Distance()).add(a, b[rows][mask[rows]])
    finally:
        for module in training:
            module.training = True
    return found


def _hidden_states(encoder: torch.nn.Module, packed: PackedBatch) -> list[torch.Tensor]:
    """[T, H] of every stage, the input of a final norm before its output."""
    last: list[torch.Tensor] = []
    hook = None
    if encoder.final_norm is not None:
        hook = encoder.layers[encoder.order()[-1]].register_forward_hook(lambda _, given, out: last.append(out))
    try:
        with torch.inference_mode():
            states = encoder.hidden_states(packed)
    finally:
        if hook is not None:
            hook.remove()
    return [*states[:-1], *last, states[-1]]


def _names(layers: int, states: int) -> list[str]:
    names = ["embeddings", *(f"layer {layer}" for layer in range(layers))]
    return names if states == len(names) else [*names, "final norm"]


def _worst(choose, a: float, b: float) -> float:
    return float("nan") if a != a or b != b else choose(a, b)
