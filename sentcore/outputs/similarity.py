"""How alike two sets of sentence features are, under sentence-transformers' names."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from sentcore.errors import ArgumentValueError

SIMILARITY_FNS = ("cosine", "dot", "euclidean", "manhattan")


def check_similarity_fn(name: str) -> str:
    """`name` itself, or an ArgumentValueError."""
    if name not in SIMILARITY_FNS:
        raise ArgumentValueError(f"similarity_fn_name is {name!r}; accepted: {', '.join(SIMILARITY_FNS)}")
    return name


def similarity(a: torch.Tensor, b: torch.Tensor, name: str = "cosine") -> torch.Tensor:
    """[A, E] and [B, E] -> [A, B] float32, higher is more alike (distances are negated)."""
    a, b = _rows(a), _rows(b)
    if name == "cosine":
        return F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
    if name == "dot":
        return a @ b.T
    return -torch.cdist(a, b, p={"euclidean": 2.0, "manhattan": 1.0}[check_similarity_fn(name)])


def similarity_pairwise(a: torch.Tensor, b: torch.Tensor, name: str = "cosine") -> torch.Tensor:
    """[A, E] and [A, E] -> [A] float32, row by row."""
    a, b = _rows(a), _rows(b)
    if a.shape != b.shape:
        raise ArgumentValueError(
            f"a has shape {list(a.shape)} and b {list(b.shape)}; accepted: as many rows and columns in both"
        )
    if name == "cosine":
        return (F.normalize(a, dim=1) * F.normalize(b, dim=1)).sum(dim=1)
    if name == "dot":
        return (a * b).sum(dim=1)
    order = {"euclidean": 2.0, "manhattan": 1.0}[check_similarity_fn(name)]
    return -torch.linalg.vector_norm(a - b, ord=order, dim=1)


def _rows(value: torch.Tensor | np.ndarray | list) -> torch.Tensor:
    if isinstance(value, list) and value and isinstance(value[0], torch.Tensor):
        value = torch.stack(value)
    tensor = torch.as_tensor(np.asarray(value) if isinstance(value, list) else value).float()
    return tensor[None] if tensor.dim() == 1 else tensor
