"""Every way of computing a model's features that is measured: ours by dtype, plain PyTorch, sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from sentcore.errors import SentcoreError
from sentcore.integrations.sentence_transformers_peer import sentence_transformers_encode
from sentcore.placement import pick_device, pick_dtype
from sentcore.sentence_encoder import SentenceEncoder

BASE = "sentcore float32"  # what the others' features are compared with
PLAIN = "plain PyTorch"
PEER = "sentence-transformers"


@dataclass(frozen=True)
class Method:
    """One way of computing.

    Attributes:
        name: of it, for the reader.
        dtype: what it computes in.
        encode: B texts -> [B, E] float32.
    """

    name: str
    dtype: str
    encode: Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class LeftOut:
    """A method that is not measured, and why."""

    name: str
    reason: str


def load_methods(
    model: str,
    dtypes: Sequence[str] | None = None,
    *,
    device: str | None = None,
    max_length: int | None = None,
    batch_tokens: int | None = None,
    local_files_only: bool = False,
    peer: bool = True,
) -> tuple[SentenceEncoder, list[Method], list[LeftOut]]:
    """Every method on one folder: float32 of ours first, always; then the other dtypes, plain PyTorch, sentence-transformers.

    Args:
        model: "minilm", a folder or a hub id.
        dtypes: names of dtypes that must run here; None for all that do.
        device, max_length, local_files_only: as SentenceEncoder has them.
        batch_tokens: as `encode` has it; sentence-transformers keeps its own batch size.
        peer: whether sentence-transformers is measured.

    Returns:
        (the float32 encoder, the methods, those that cannot be had here and why).

    Raises:
        SentcoreError: the model cannot be loaded or has no pooling; one of `dtypes` does not run here.
    """
    for dtype in dtypes or ():
        pick_dtype(dtype, pick_device(device))  # before anything is loaded
    options = {"device": device, "max_length": max_length, "local_files_only": local_files_only}
    base = SentenceEncoder(model, dtype="float32", **options)
    base.get_sentence_embedding_dimension()  # an error where there is no pooling
    folder = base.checkpoint.folder
    found: list[Method] = []
    left_out: list[LeftOut] = []

    def add(name: str, dtype: str, encoder: SentenceEncoder) -> None:
        found.append(Method(name, dtype, partial(encoder.encode, batch_tokens=batch_tokens, show_progress_bar=False)))

    add(BASE, "float32", base)
    for dtype in dtypes or ("bfloat16", "float16", "int8", "fp8"):
        if dtype == "float32":
            continue
        try:
            add(f"sentcore {dtype}", dtype, SentenceEncoder(folder, dtype=dtype, **options))
        except SentcoreError as refused:
            if dtypes is not None:
                raise
            left_out.append(LeftOut(f"sentcore {dtype}", str(refused)))
    add(PLAIN, "float32", SentenceEncoder(folder, dtype="float32", backend="reference", **options))
    if peer:
        try:
            found.append(Method(PEER, "float32", sentence_transformers_encode(base)))
        except SentcoreError as refused:
            left_out.append(LeftOut(PEER, str(refused)))
    return base, found, left_out
