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
from sentcore.pipeline.graphs import GraphRunner
from sentcore.pipeline.in_flight import run_in_flight
from sentcore.pipeline.lane import Lane
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
    graphs: GraphRunner | None = None,
    lane: Lane | None = None,
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
        graphs: replays what it has captured of sentence features; None computes all as always.
        lane: the way to a device that computes beside the host; for sentence features of more than one batch.
    """
    run = partial(model, prompt_length=prompt_length, sparse="sparse" in wanted, colbert="colbert" in wanted)
    if wanted == ("sentence_embedding",):
        none_empty = bool(tokens.lengths.min(initial=1) > 0)
        rows = _rows(model, prompt_length, none_empty, finish, form, graphs)
        if lane is not None and int(tokens.offsets[-1] - tokens.offsets[0]) > budget.now:
            return _run_lane(lane, tokens, rows, budget, model, advance)
    else:
        rows = None

    def compute(batch: PackedBatch) -> dict[str | None, torch.Tensor | list]:
        if rows is not None:
            return {"sentence_embedding": rows(batch).cpu()}
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
                    _put(out, name, len(tokens), indices, part)
                else:
                    _place(out.setdefault(name, [None] * len(tokens)), indices, part)
            advance(len(indices), batch.num_tokens)
    return out


def _run_lane(
    lane: Lane,
    tokens: TokenizedTexts,
    compute: Callable[[PackedBatch], torch.Tensor],
    budget: TokenBudget,
    model: SentenceModel,
    advance: Callable[[int, int], None],
) -> WindowOutputs:
    out: WindowOutputs = {}
    with torch.inference_mode():
        for indices, count, part in run_in_flight(tokens, budget, lane, compute, model.encoder.config.uncounted_id):
            _put(out, "sentence_embedding", len(tokens), indices, part)
            advance(len(indices), count)
    return out


def _rows(
    model: SentenceModel,
    prompt_length: int,
    none_empty: bool,
    finish: Callable[[torch.Tensor], torch.Tensor],
    form: RowForm | None,
    graphs: GraphRunner | None,
) -> Callable[[PackedBatch], torch.Tensor]:
    """batch -> [b, E'] on the device; sentences without tokens need every row of the encoder to be computed."""
    if form is not None and graphs is None:
        return partial(model.finished_rows, form=form, prompt_length=prompt_length, none_empty=none_empty)
    if graphs is not None:
        embed = partial(graphs, model, prompt_length=prompt_length, every_row=not none_empty)
    else:

        def embed(batch: PackedBatch) -> torch.Tensor:
            if none_empty:
                return model.sentence_embedding(batch, prompt_length)
            return model(batch, prompt_length).sentence_embedding

    if form is not None:
        return lambda batch: form.of_features(embed(batch))
    return lambda batch: finish(embed(batch)).float()


def _put(out: WindowOutputs, name: str, texts: int, indices: np.ndarray, part: torch.Tensor) -> None:
    if name not in out:
        with torch.inference_mode(False):  # a tensor that autograd may take, outside
            out[name] = torch.empty((texts, part.shape[1]), dtype=part.dtype)
    out[name][torch.from_numpy(indices)] = part


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
