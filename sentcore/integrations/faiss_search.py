"""Approximate search by faiss (extra `[faiss]`): an index of its own over the same features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sentcore.errors import ArgumentValueError, MissingPackageError

DEFAULT_FACTORY = "HNSW32"
BLOCK = 65_536  # rows handed over at once, for features larger than memory
_EF_SEARCH = 64  # entries that HNSW looks at; faiss's own 16 finds clearly less


def check(similarity_fn_name: str, factory: str, dimension: int) -> Any:
    """An empty faiss index for features of `dimension` columns, made by faiss's `index_factory`.

    Raises:
        MissingPackageError: faiss is not installed.
        ArgumentValueError: a similarity that faiss has no product for, or a string that it does not know.
    """
    faiss = _faiss()
    if similarity_fn_name not in ("cosine", "dot"):
        raise ArgumentValueError(
            f"index_type is 'faiss' and the model's similarity_fn_name {similarity_fn_name!r}; accepted with faiss: cosine, "
            "dot. Use index_type='exact'"
        )
    try:
        return faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise _refused(factory, f"for features of {dimension} columns", error) from error


def build(features: np.ndarray, similarity_fn_name: str, factory: str) -> Any:
    """A faiss index of features [N, E] float32; `check` says what it raises, and that too few features are refused."""
    index = check(similarity_fn_name, factory, features.shape[1])
    try:
        if not index.is_trained:
            index.train(np.ascontiguousarray(features))
        for first in range(0, len(features), BLOCK):
            index.add(np.ascontiguousarray(features[first : first + BLOCK]))
    except RuntimeError as error:
        raise _refused(factory, f"over {len(features)} features", error) from error
    if factory.startswith("HNSW"):
        _faiss().ParameterSpace().set_index_parameter(index, "efSearch", _EF_SEARCH)
    return index


def search(index: Any, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(scores [Q, k] float32, rows [Q, k] int64), best first; row -1 where faiss found fewer."""
    return index.search(np.ascontiguousarray(queries), k)


def write(index: Any, path: Path) -> None:
    """Into a file."""
    _faiss().write_index(index, str(path))


def read(path: Path) -> Any:
    """From a file that `write` made."""
    return _faiss().read_index(str(path))


def _refused(factory: str, what: str, error: RuntimeError) -> ArgumentValueError:
    said = str(error).strip().splitlines()[-1]  # the C++ function and line stand before
    return ArgumentValueError(
        f"faiss_factory is {factory!r}, which faiss cannot build {what} ({said}); accepted: faiss's index_factory strings, as "
        "'HNSW32', 'Flat' or 'IVF64,Flat'"
    )


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingPackageError(
            f"index_type is 'faiss', a package which cannot be imported ({error}); pip install 'sentcore[faiss]', or use "
            "index_type='exact'"
        ) from error
    return faiss
