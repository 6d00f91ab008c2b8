"""One window of tokenized texts through the model, batch by batch, every output back in the order of the texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import torch

from sentcore.model import Features, SentenceModel
from sentcore.outputs import RowForm
from sentcore.packed import PackedBatch, TokenizedTexts
from sentcore.pipeline.batches import run_batches
from sentcore.pipeline.memory import TokenBudget
from sentcore.pipeline.results import items_of

# output value -> a [B, E] tensor for "sentence_embedding", else a list of B items
WindowOutputs = dict[str | None, torch.Tensor | list]


def run_window(
    model: SentenceModel,
    tokens: TokenizedTexts,
    wanted: tuple[str | None, ...],
    finish: Callable[[torch.Tensor], torch.Tensor],
    budget: TokenBudget,
    device: torch.device,
    prompt_length: int,
    advance: Callable[[int, int], None],
    form: RowForm | None = None,
) -> WindowOutputs:
    """The outputs of every text, all from one pass of the encoder over each batch.

    Args:
        model: on `device`.
        tokens: B tokenized texts.
        wanted: output values; None for a dict of everything dense per sentence.
        finish: [b, E] -> [b, E'], what is done to rows of sentence features.
        budget: tokens of one batch.
        prompt_length: tokens that a pooling without prompts leaves out.
        advance: told the sentences and tokens of every batch that is done.
        form: what is made of sentence features on the device, instead of `finish`; `opened` reads these rows.
    """
    run = partial(model, prompt_length=prompt_length, sparse="sparse" in wanted, colbert="colbert" in wanted)
    none_empty = tokens.lengths.min(initial=1) > 0
    if wanted == ("sentence_embedding",) and none_empty:
        run = partial(_sentence_features, model, prompt_length)

    def compute(batch: PackedBatch) -> dict[str | None, torch.Tensor | list]:
        if form is not None:
            return {"sentence_embedding": model.finished_rows(batch, form, prompt_length, none_empty=none_empty).cpu()}
        # All that takes memory of a batch, so that a batch that does not fit has left nothing behind.
        features = run(batch)
        return {
            name: finish(features.sentence_embedding).float().cpu()
            if name == "sentence_embedding"
            else list(_items(name, batch, features, finish))
            for name in wanted
        }

    uncounted_id = model.encoder.config.uncounted_id
    out: WindowOutputs = {}
    with torch.inference_mode():
        for indices, batch, found in run_batches(tokens, budget, device, compute, uncounted_id):
            for name, part in found.items():
                if name == "sentence_embedding":
                    if name not in out:
                        out[name] = torch.empty((len(tokens), part.shape[1]), dtype=part.dtype)
                    out[name][torch.from_numpy(indices)] = part
                else:
                    _place(out.setdefault(name, [None] * len(tokens)), indices, part)
            advance(len(indices), batch.num_tokens)
    # Outside inference mode a copy is a tensor that autograd may take.
    return {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in out.items()}


def _sentence_features(model: SentenceModel, prompt_length: int, batch: PackedBatch) -> Features:
    return Features(None, model.sentence_embedding(batch, prompt_length))


def _items(name: str | None, batch: PackedBatch, features: Features, finish: Callable) -> Iterator:
    if name == "sparse":
        return iter(features.sparse.dicts())
    if name == "colbert":
        return _colbert(batch, features.colbert)
    return items_of(batch, features, finish, name)


def _colbert(batch: PackedBatch, rows: torch.Tensor) -> Iterator[torch.Tensor]:
    """[tokens - 1, E] float32 on the CPU for each sentence: its first token, CLS, is left out."""
    rows = rows.float().cpu()
    for first, last in pairwise(batch.cu_seqlens.tolist()):
        yield rows[first + 1 : last]


def _place(items: list, indices: np.ndarray, found: list) -> None:
    for index, item in zip(indices, found, strict=True):
        items[index] = item
