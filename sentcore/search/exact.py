"""The k best of any number of rows, a block at a time, without sorting them all."""

from __future__ import annotations

import numpy as np

from sentcore.outputs.similarity import similarity

BLOCK_BYTES = 64 << 20  # of features and of scores held at once


def top_k(queries: np.ndarray, features: np.ndarray, k: int, similarity_fn_name: str) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of `features` most like each query, best first; of equal scores the earlier row.

    Args:
        queries: [Q, E] float32; of length 1 for "cosine", as the features are.
        features: [N, E] float32, perhaps memory-mapped: read once, a block at a time.
        k: 1 to N.
        similarity_fn_name: "cosine", "dot", "euclidean" or "manhattan"; distances are negated.

    Returns:
        (scores [Q, k] float32, rows [Q, k] int64).
    """
    count = len(queries)
    best_scores = np.empty((count, 0), np.float32)
    best_rows = np.empty((count, 0), np.int64)
    block = max(1, BLOCK_BYTES // (4 * max(features.shape[1], count, 1)))
    for first in range(0, len(features), block):
        part = features[first : first + block]
        if similarity_fn_name in ("cosine", "dot"):
            scores = queries @ part.T
        else:
            scores = similarity(queries, np.array(part), similarity_fn_name).numpy()
        found_scores, found_rows = _best(scores, np.broadcast_to(np.arange(len(part)), scores.shape), k)
        # Rows of earlier blocks stand first, so that a stable sort prefers them.
        best_scores, best_rows = _best(
            np.concatenate([best_scores, found_scores], axis=1),
            np.concatenate([best_rows, found_rows + first], axis=1),
            k,
        )
    return best_scores, best_rows


def _best(scores: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Of [Q, n] scores and their rows, in rising order where scores are equal, the k best, best first."""
    k = min(k, scores.shape[1])
    least = np.partition(scores, -k, axis=1)[:, -k]  # the k-th best of each query
    kept_scores, kept_rows = np.empty((len(scores), k), scores.dtype), np.empty((len(scores), k), np.int64)
    for query, (line, bound) in enumerate(zip(scores, least, strict=True)):
        places = np.flatnonzero(line >= bound)  # k, or more where several equal the k-th
        places = places[np.argsort(-line[places], kind="stable")[:k]]
        kept_scores[query], kept_rows[query] = line[places], rows[query][places]
    return kept_scores, kept_rows
