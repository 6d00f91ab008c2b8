"""One text through a model: what trace and attribution share."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from sentcore.encode_options import EncodeOptions
from sentcore.errors import ArgumentTypeError, ArgumentValueError, TruncationWarning
from sentcore.inputs.packing import pack_batch
from sentcore.inputs.texts import check_text
from sentcore.outputs import Normalize, Pooling
from sentcore.packed import PackedBatch
from sentcore.sentence_encoder import SentenceEncoder


@dataclass(frozen=True)
class Prepared:
    """A text as `encode` would put it into the model.

    Attributes:
        text: with its prompt.
        batch: of this one sentence.
        prompt_length: tokens that the pooling leaves out.
        truncated: whether it was cut.
        options: encode's, without any normalizing of its own.
    """

    text: str
    batch: PackedBatch
    prompt_length: int
    truncated: bool
    options: EncodeOptions


def prepare(model: SentenceEncoder, text: str, name: str, prompt_name: str | None, prompt: str | None) -> Prepared:
    """Checks the text, called `name` in messages, and tokenizes it."""
    if not isinstance(model, SentenceEncoder):
        raise ArgumentTypeError(
            f"model is of type {type(model).__name__}; accepted: a sentcore.SentenceEncoder, made from a folder's name"
        )
    check_text(text, 0, name)
    wanted = "sentence_embedding" if len(model.model.outputs) else "token_embeddings"
    options = EncodeOptions.check(model, prompt_name, prompt, wanted, "float32", False, None)
    text = (options.prompt or "") + str(text)
    tokens = model.tokenizer.encode([text], max_length=model.max_seq_length)
    if not len(tokens.token_ids):
        raise ArgumentValueError(f"{name} is {text!r}, of no tokens; accepted: a text with at least one token")
    if tokens.truncated[0]:
        warnings.warn(
            f"{name} is longer than {model.max_seq_length} tokens and was cut there; what lies behind has no part in its feature",
            TruncationWarning,
            stacklevel=3,
        )
    uncounted_id = model.model.encoder.config.uncounted_id
    batch = pack_batch(tokens, np.zeros(1, np.int64), device=model.device, uncounted_id=uncounted_id)
    return Prepared(text, batch, options.prompt_length(model), bool(tokens.truncated[0]), options)


class StageInputs:
    """What a model's pooling and its last Normalize are given in a pass.

    Attributes:
        pooling: the stage, and its arguments (x, batch, prompt_length, states); None where there is none.
        before_normalize: [B, E] that the last stage scales to length 1; None where it is another stage.
    """

    def __init__(self) -> None:
        self.pooling: tuple[Pooling, tuple] | None = None
        self.before_normalize: torch.Tensor | None = None


@contextmanager
def watching(model: SentenceEncoder) -> Iterator[StageInputs]:
    """Keeps the inputs of these stages in every pass within."""
    seen, handles = StageInputs(), []

    def see_pooling(stage: Pooling, args: tuple) -> None:
        seen.pooling = (stage, args)

    def see_normalize(stage: Normalize, args: tuple) -> None:
        seen.before_normalize = args[0]

    for stage in model.model.outputs:
        if isinstance(stage, Pooling):
            handles.append(stage.register_forward_pre_hook(see_pooling))
    if len(model.model.outputs) and isinstance(model.model.outputs[-1], Normalize):
        handles.append(model.model.outputs[-1].register_forward_pre_hook(see_normalize))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
