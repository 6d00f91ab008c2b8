"""What of a model decides its features, in a form that can be kept in a file and compared."""

from __future__ import annotations

import hashlib

import torch

from sentcore.sentence_encoder import SentenceEncoder


def fingerprint(model: SentenceEncoder) -> dict[str, str | int]:
    """Weights, tokenizer and stages as SHA-256, the rest in words; equal where all features are the same up to rounding.

    It is taken of the model as it is now, not of the folder it came from: after a training step it is another.
    """
    stages = "\n".join(
        f"{type(stage).__name__} {getattr(stage, 'spec', '')} {getattr(stage, 'activation', '')}"
        for stage in model.model.outputs
    )
    return {
        "weights": _weights(model),
        "tokenizer": _sha256(model.tokenizer.describe()),
        "architecture": _sha256(f"{model.checkpoint.config}\n{stages}"),
        "dtype": str(model.dtype).removeprefix("torch."),
        "max_length": model.max_seq_length,
        "similarity_fn_name": model.similarity_fn_name,
    }


def _weights(model: SentenceEncoder) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
