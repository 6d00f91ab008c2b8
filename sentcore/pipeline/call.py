"""One call of encode: windows of texts, tokenized ahead, to outputs, in order, with what is to be said about them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator

import torch

from sentcore.inputs.chunks import ChunkedTexts, tokenize_chunked
from sentcore.outputs import opened
from sentcore.packed import TokenizedTexts
from sentcore.pipeline.ahead import one_ahead
from sentcore.pipeline.chunks import encode_chunked
from sentcore.pipeline.ending import at_work
from sentcore.pipeline.lane import lane_to
from sentcore.pipeline.memory import TokenBudget
from sentcore.pipeline.modes import evaluating
from sentcore.pipeline.notes import Notes
from sentcore.pipeline.results import non_finite_rows
from sentcore.pipeline.window import WindowOutputs, run_window

_ROWS = "sentence_embedding"
_RETRIED = (torch.bfloat16, torch.float16)  # int8 weights are no copy of the model in float32


class Call:
    """Computes windows with an encoder.

    Args:
        encoder: a SentenceEncoder.
        options: its EncodeOptions for this call.
        batch_tokens: the token budget of a batch.
        advance: told of (sentences, tokens) that are done.
    """

    def __init__(self, encoder, options, batch_tokens: int, advance: Callable[[int, int], None]) -> None:
        self.notes = Notes()
        self._encoder = encoder
        self._options = options
        self._form = options.row_form(encoder.device)
        self._budget = TokenBudget(batch_tokens)
        self._told = advance
        self._lane = lane_to(encoder.device)

    def run(self, windows: Iterable[list[str]], workers=None) -> Iterator[WindowOutputs]:
        """The outputs of each window, in order; `workers`, a WorkerPool, computes several at once."""
        if workers is not None:
            yield from workers.run(windows, self._options, self._budget.asked, self.notes, self._told)
            return
        for texts, tokens in one_ahead(windows, lambda texts: (texts, self._tokenize(texts))):
            yield self._outputs(texts, tokens)

    def warn(self) -> None:
        """Says once what there is to say."""
        if self.notes.are_any():
            dtype = str(self._encoder.dtype).removeprefix("torch.")
            self.notes.warn(self._encoder.max_seq_length, dtype, self._budget.asked)

    @at_work()
    def _tokenize(self, texts: list[str]) -> TokenizedTexts | ChunkedTexts:
        options, encoder = self._options, self._encoder
        if options.prompt:
            texts = [options.prompt + text for text in texts]
        if options.chunking is not None:
            return tokenize_chunked(encoder.tokenizer, texts, options.chunking)
        return encoder.tokenizer.encode(texts, max_length=encoder.max_seq_length)

    @at_work()
    def _outputs(self, texts: list[str], tokens: TokenizedTexts | ChunkedTexts) -> WindowOutputs:
        model = self._encoder.model
        with evaluating(self._encoder, model):
            outputs = self._computed(model, tokens, self._options.wanted, self._advance)
            if _ROWS in outputs:
                self._retry(texts, outputs)
        self.notes.texts += len(texts)
        self.notes.cut += int(tokens.truncated.sum())
        if self._budget.lowest < self._budget.asked:
            self.notes.lowest = self._budget.lowest
        return outputs

    def _advance(self, sentences: int, tokens: int) -> None:
        self.notes.tokens += tokens
        self._told(sentences, tokens)

    def _computed(self, model, tokens: TokenizedTexts | ChunkedTexts, wanted: tuple, advance) -> WindowOutputs:
        options, encoder = self._options, self._encoder

        def run(some: TokenizedTexts, finish, told) -> WindowOutputs:
            prompt_length = options.prompt_length(encoder)
            # The copy of the model that `_retry` makes is used once: no graph of it would be used again.
            graphs = encoder.graphs if model is encoder.model else None
            form = self._form if wanted == (_ROWS,) else None
            where = (self._budget, encoder.device, prompt_length)
            return run_window(model, some, wanted, finish, *where, told, form, graphs, self._lane)

        if isinstance(tokens, ChunkedTexts):
            return encode_chunked(tokens, options.chunking.mode, options.ends_normalized, run, options.finish, advance)
        return run(tokens, options.finish, advance)

    def _retry(self, texts: list[str], outputs: WindowOutputs) -> None:
        """Puts features that are NaN or infinite right where a copy of the model in float32 can, and notes both."""
        outputs[_ROWS], bad = _opened(outputs[_ROWS])
        if not bad:
            return
        first = self.notes.texts
        if self._encoder.dtype in _RETRIED:
            model = copy.deepcopy(self._encoder.model).float()
            again = self._computed(model, self._tokenize([texts[i] for i in bad]), (_ROWS,), lambda *_: None)
            outputs[_ROWS][bad], again_bad = _opened(again[_ROWS])
            still = {bad[i] for i in again_bad}
            self.notes.retried.add([first + i for i in bad if i not in still])
            bad = [i for i in bad if i in still]
        self.notes.non_finite.add([first + i for i in bad])


def _opened(rows: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """(the rows, which of them hold NaN or infinity or held such before they were quantized)."""
    if rows.is_floating_point():
        return rows, non_finite_rows(rows)
    rows, finite = opened(rows)
    return rows, (~finite).nonzero().flatten().tolist()
