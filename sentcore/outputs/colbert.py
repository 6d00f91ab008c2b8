"""A vector for each token: bge-m3's ColBERT head, and the similarity of two texts in such vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.ops.inference_linear import InferenceLinear, usable
from sentcore.ops.plain import is_plain
from sentcore.outputs.specs import LinearSpec


class Colbert(nn.Module):
    """linear(h) of every token, scaled to length 1 (Chen et al. 2024; Khattab & Zaharia 2020)."""

    def __init__(self, spec: LinearSpec, backend: str = "auto") -> None:
        super().__init__()
        self.backend = backend
        self.linear = spec.module()
        self._packed = InferenceLinear()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[T, H] -> [T, E] in the head's dtype, float32; the first token of a sentence is left out by who splits it."""
        x = x.to(self.linear.weight.dtype)
        product = (
            self._packed(x, (self.linear,)) if usable(x, self.backend) and is_plain(self.linear) else self.linear(x)
        )
        return F.normalize(product, p=2.0, dim=1)


def colbert_similarity(a, b):
    """MaxSim (Khattab & Zaharia 2020, https://arxiv.org/abs/2004.12832), averaged over the query's tokens.

    Args:
        a: the query's rows [tokens, E], or a list of such.
        b: the document's rows [tokens, E], or a list of such.

    Returns:
        A float for two texts, else [A, B] float32; 0 where either has no rows.

    Raises:
        ArgumentTypeError, ArgumentValueError: something else than rows, or rows of different widths.
    """
    queries, documents = _rows("a", a), _rows("b", b)
    widths = sorted({rows.shape[1] for rows in (*queries, *documents)})
    if len(widths) > 1:
        raise ArgumentValueError(f"a and b hold rows of {widths} columns; accepted: rows of one model, equally wide")
    scores = torch.zeros((len(queries), len(documents)))
    if queries and documents:
        lengths = [len(document) for document in documents]
        together = torch.cat(documents)
        for score, query in zip(scores, queries, strict=True):
            if not len(query):
                continue
            for column, part in enumerate((query @ together.T).split(lengths, dim=1)):
                if part.shape[1]:
                    score[column] = part.amax(dim=1).mean()
    return scores if isinstance(a, (list, tuple)) or isinstance(b, (list, tuple)) else float(scores[0, 0])


def _rows(name: str, value: object) -> list[torch.Tensor]:
    try:
        items = [torch.as_tensor(item).float() for item in (value if isinstance(value, (list, tuple)) else [value])]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentTypeError(
            f"{name} is of type {type(value).__name__}; accepted: rows [tokens, E] or a list of such, as encode(..., "
            "output_value='colbert') gives them"
        ) from error
    wrong = [list(item.shape) for item in items if item.dim() != 2]
    if wrong:
        raise ArgumentValueError(f"{name} holds a text of shape {wrong[0]}; accepted: [tokens, E] for each text")
    return items
