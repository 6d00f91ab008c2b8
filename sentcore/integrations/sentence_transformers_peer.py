"""sentence-transformers on the folder of a SentenceEncoder, to be compared with it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sentcore.errors import CheckpointError, MissingPackageError
from sentcore.integrations.transformers_reference import custom_code, quiet
from sentcore.sentence_encoder import SentenceEncoder


def sentence_transformers_encode(model: SentenceEncoder) -> Callable[[list[str]], np.ndarray]:
    """[B, E] float32 of B texts by its own encode, as it comes: float32, on `model`'s device, texts cut where `model` cuts them.

    Raises:
        MissingPackageError: it is not installed, or cannot be imported.
        CheckpointError: it has no class for the folder, or does not run it.
    """
    try:
        import sentence_transformers
        import transformers
    except ImportError as error:
        raise MissingPackageError(
            f"sentence-transformers cannot be imported ({error}); pip install sentence-transformers"
        ) from error
    folder = model.checkpoint.folder
    custom = custom_code(model.checkpoint.hf_config)
    if custom is not None:
        raise CheckpointError(
            f"{folder}/config.json: {custom} is built by code on the hub and by no class of transformers"
        )
    try:
        with quiet(transformers):
            peer = sentence_transformers.SentenceTransformer(
                str(folder), device=str(model.device), local_files_only=True, trust_remote_code=False
            )
            peer.float()  # weights that are stored in 16 bits would be computed in them
            peer.max_seq_length = model.max_seq_length
            peer.encode("a", show_progress_bar=False)  # what it cannot do is known before anything is measured
    except Exception as error:  # whatever its modules and transformers raise
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"{folder}: sentence-transformers {sentence_transformers.__version__} does not run this folder ({first[0]})"
        ) from error
    return lambda texts: peer.encode(texts, show_progress_bar=False)
