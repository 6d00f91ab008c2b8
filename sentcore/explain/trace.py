"""trace: every step from a text to its feature, as data."""

from __future__ import annotations

import torch

from sentcore.errors import ArgumentValueError
from sentcore.explain.data import Trace
from sentcore.explain.passes import prepare, watching
from sentcore.explain.recorder import Recorder
from sentcore.explain.shares import pooling_shares
from sentcore.pipeline import evaluating
from sentcore.sentence_encoder import SentenceEncoder


def trace(
    model: SentenceEncoder,
    text: str,
    *,
    prompt_name: str | None = None,
    prompt: str | None = None,
    max_tokens: int | None = None,
) -> Trace:
    """Runs one text through the model and keeps what each of its layers was given and gave.

    The layers compute as they always do; hooks look on. On a CPU they run one by one instead of in one call, so that the
    feature may differ from `encode`'s in the last bits.

    Args:
        model: any SentenceEncoder, in any dtype and on any device.
        text: one text; cut at max_seq_length with a TruncationWarning.
        prompt_name, prompt: as in `SentenceEncoder.encode`.
        max_tokens: keep Q, K, V, attention, embeddings and hidden states of the first tokens alone, which bounds memory; all
            tokens are computed, and norms, pooling and feature are of all. None keeps everything: L · N · T² probabilities.

    Raises:
        ArgumentTypeError, ArgumentValueError: by argument, value found, what is accepted, remedy.
    """
    if max_tokens is not None and (isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1):
        raise ArgumentValueError(f"max_tokens is {max_tokens!r}; accepted: an integer of at least 1, or None for all")
    ready = prepare(model, text, "text", prompt_name, prompt)
    count = ready.batch.num_tokens
    recorder = Recorder(model.model.encoder, count if max_tokens is None else min(count, max_tokens))
    with torch.no_grad(), evaluating(model, model.model), watching(model) as seen:
        with recorder:
            features = model.model(ready.batch, ready.prompt_length)
        recorder.finish(features.token_embeddings)
        weights = {}
        if seen.pooling is not None:
            stage, args = seen.pooling
            weights, _ = pooling_shares(stage, *args)
        feature = None
        if features.sentence_embedding is not None:
            feature = ready.options.finish(features.sentence_embedding)[0].float().cpu()
    ids = ready.batch.token_ids.tolist()
    return Trace(
        text=ready.text,
        tokens=model.tokenizer.tokens(ids),
        labels=model.tokenizer.labels(ids),
        token_ids=ids,
        truncated=ready.truncated,
        embeddings=recorder.embeddings,
        hidden_states=recorder.hidden_states,
        layers=recorder.layers,
        norms=recorder.norms,
        pooling={mode: values.cpu() for mode, values in weights.items()},
        feature=feature,
    )
