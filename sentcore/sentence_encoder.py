"""SentenceEncoder: the face. A model folder, its tokenizer, the model, and the pipeline behind one object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sentcore.checkpoint.build import build_model
from sentcore.checkpoint.load import Checkpoint, load_checkpoint
from sentcore.checkpoint.pooling import with_pooling
from sentcore.checkpoint.resolve import resolve
from sentcore.checkpoint.save import save_checkpoint
from sentcore.encode_options import (
    EncodeOptions,
    check_batch_invariant,
    pick_backend,
    pick_device,
    pick_dtype,
    pick_max_length,
)
from sentcore.errors import ArgumentValueError
from sentcore.inputs.chunks import ChunkedTexts, tokenize_chunked
from sentcore.inputs.texts import check_texts
from sentcore.inputs.tokenizer import Tokenizer
from sentcore.outputs.similarity import check_similarity_fn, similarity, similarity_pairwise
from sentcore.packed import PackedBatch, TokenizedTexts
from sentcore.pipeline import (
    CutTexts,
    check_batch_tokens,
    checked_windows,
    encode_chunked,
    in_training,
    items_of,
    one_ahead,
    progress_bar,
    report_non_finite,
    run_batches,
    windows,
)
from sentcore.word_cutters import WordCutter, word_cutter


class SentenceEncoder(nn.Module):
    """Sentences to features, with the weights and the semantics of a sentence-transformers folder.

    Args:
        model_name_or_path: "minilm" (the default model, extra `[minilm]`), a local folder (sentence-transformers layout or
            a bare Hugging Face checkpoint), or a hub id.
        device: "cpu", "cuda", "cuda:1", ...; None takes a GPU where torch sees one.
        dtype: "auto" (float32), "float32", "bfloat16" or "float16" (GPUs), of weights and activations; "int8" (CPUs):
            linear layers in 8 bits, weights rounded per output and activations per token, the rest in bfloat16, for
            inference alone. LayerNorm, softmax and pooling are computed in float32 always.
        backend: "auto", "native" (an error where the compiled kernels are absent) or "reference" (plain PyTorch).
        max_length: tokens a text is cut at; None takes the folder's.
        batch_invariant: True guarantees that a sentence's feature has the same bits alone, in any batch, in any order and on any
            number of threads, or refuses where that does not hold. It costs nothing: where it is accepted the path is the
            usual one. CPUs with compiled kernels, for now.
        revision: branch, tag or commit of a hub id.
        local_files_only: never ask the hub.
        pooling: modes instead of the folder's: sentence-transformers' six, "first_last_avg" or "avg_top2"; several are concatenated.
        words: "jieba" (extra `[chinese]`) or a callable that cuts CJK text into words, for vocabularies that hold words.

    Raises:
        SentcoreError: one of its kinds, with the file or argument, the value found, what is accepted and the remedy.
    """

    def __init__(
        self,
        model_name_or_path: str | Path = "minilm",
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        backend: str = "auto",
        max_length: int | None = None,
        batch_invariant: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        pooling: str | Sequence[str] | None = None,
        words: str | WordCutter | None = None,
    ) -> None:
        super().__init__()
        chosen_device = pick_device(device)
        chosen_dtype = pick_dtype(dtype, chosen_device)
        self.backend = pick_backend(backend)
        if batch_invariant:
            check_batch_invariant(chosen_device, chosen_dtype, backend)
        folder = resolve(model_name_or_path, revision=revision, local_files_only=local_files_only)
        checkpoint = with_pooling(load_checkpoint(folder), pooling)
        self.checkpoint: Checkpoint = checkpoint
        self._max_length = pick_max_length(max_length, checkpoint)
        self.tokenizer = Tokenizer.from_folder(
            checkpoint.tokenizer_folder, self._max_length, checkpoint.do_lower_case, word_cutter(words)
        )
        self.prompts: dict[str, str] = dict(checkpoint.prompts)
        self.default_prompt_name: str | None = checkpoint.default_prompt_name
        self.truncate_dim: int | None = checkpoint.truncate_dim
        self.similarity_fn_name = check_similarity_fn(checkpoint.similarity_fn_name or "cosine")
        self.model = build_model(checkpoint, backend, chosen_device, chosen_dtype)
        checkpoint.state_dict.clear()  # the model holds the weights now, perhaps in another dtype
        self.eval()

    # ---- in a training loop ---------------------------------------------------------------------------------------

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """[B, E] sentence features of a packed batch, differentiable in training."""
        return self.model(batch).sentence_embedding

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.encoder.embeddings.word_embeddings.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the encoder's linear layers compute in."""
        return self.model.encoder.dtype

    @property
    def max_seq_length(self) -> int:
        """Tokens a text is cut at, special tokens included."""
        return self._max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self._max_length = pick_max_length(value, self.checkpoint)

    def get_sentence_embedding_dimension(self) -> int:
        """E, after truncate_dim."""
        dimension = self.checkpoint.sentence_embedding_dimension
        return dimension if self.truncate_dim is None else min(dimension, self.truncate_dim)

    # ---- encode ---------------------------------------------------------------------------------------------------

    def encode(
        self,
        sentences: str | Iterable[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | torch.device | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        chunk: str | None = None,
        chunk_overlap: int | None = None,
        ranges: np.ndarray | None = None,
    ) -> np.ndarray | torch.Tensor | list:
        """Features of sentences, in their order, as sentence-transformers' `encode` gives them.

        Args:
            sentences: a text or a sequence of texts.
            prompt_name: a name in `prompts`; its text is put before every sentence.
            prompt: the text itself, instead of prompt_name.
            batch_tokens: tokens computed at once, which bounds memory; None for the device's default.
            show_progress_bar: None shows one for long work on a terminal.
            output_value: "sentence_embedding", "token_embeddings", or None for a dict of everything per sentence.
            precision: "float32", or "int8", "uint8", "binary", "ubinary" (over all rows of this call).
            convert_to_numpy: a NumPy array; else, without convert_to_tensor, a list of tensors.
            convert_to_tensor: one tensor on the model's device; wins over convert_to_numpy.
            device: move the model there first.
            normalize_embeddings: scale every row to length 1.
            truncate_dim: keep the first columns (Matryoshka), before normalizing.
            chunk: "mean" or "max" encodes a text longer than max_seq_length in windows and pools their features; None cuts it,
                with one TruncationWarning a call.
            chunk_overlap: tokens shared by neighbouring windows; None for an eighth of a window.
            ranges: [2, E] float32 for int8 and uint8, from `sentcore.outputs.calibration_ranges`; None for those of this call.

        Returns:
            [B, E] float32 (or `precision`); one row for one text. "token_embeddings": a list of [tokens, H] tensors.

        Raises:
            ArgumentTypeError, ArgumentValueError: a bad text by its position, a bad option by its name.
        """
        texts, single = check_texts(sentences)
        options = EncodeOptions.check(
            *(self, prompt_name, prompt, output_value, precision, normalize_embeddings),
            *(truncate_dim, chunk, chunk_overlap, ranges),
        )
        if device is not None:
            self._move(pick_device(device))
        budget = check_batch_tokens(batch_tokens, self.device)
        cut = CutTexts(self._max_length)
        with progress_bar(len(texts), show_progress_bar) as bar:
            tokenized = cut.watch(one_ahead(windows(texts), lambda window: self._tokenize(window, options)))
            parts = [self._encode_window(tokens, options, budget, bar.advance) for tokens in tokenized]
        cut.warn()
        if output_value != "sentence_embedding":
            items = [item for part in parts for item in part]
            return items[0] if single else items
        if parts:
            rows = torch.cat(parts)
        else:
            rows = torch.empty((0, 0 if single else self.get_sentence_embedding_dimension()))
        report_non_finite(rows)
        rows = options.deliver(rows, self.device, convert_to_numpy, convert_to_tensor)
        return rows[0] if single else rows

    def encode_iter(
        self,
        sentences: Iterable[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        window: int = 8192,
        chunk: str | None = None,
        chunk_overlap: int | None = None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Features of any number of texts in bounded memory.

        Yields:
            (index [b] int64, rows [b, E] float32) for consecutive blocks of at most `window` texts, in order. The next
            block is read and tokenized while one is computed. A bad text is an error that names its position; the blocks
            before it have been given.
        """
        options = EncodeOptions.check(
            *(self, prompt_name, prompt, "sentence_embedding", "float32"),
            *(normalize_embeddings, truncate_dim, chunk, chunk_overlap),
        )
        budget = check_batch_tokens(batch_tokens, self.device)
        first, cut = 0, CutTexts(self._max_length)
        with progress_bar(None, show_progress_bar) as bar:
            checked = checked_windows(sentences, window)
            for tokens in cut.watch(one_ahead(checked, lambda texts: self._tokenize(texts, options))):
                rows = self._encode_window(tokens, options, budget, bar.advance)
                report_non_finite(rows, first)
                yield np.arange(first, first + len(tokens), dtype=np.int64), rows.numpy()
                first += len(tokens)
        cut.warn()

    def _move(self, device: torch.device) -> None:
        pick_dtype(self.dtype, device)  # int8 and float16 do not run everywhere
        self.to(device)

    def _tokenize(self, texts: list[str], options: EncodeOptions) -> TokenizedTexts | ChunkedTexts:
        if options.prompt:
            texts = [options.prompt + text for text in texts]
        if options.chunking is not None:
            return tokenize_chunked(self.tokenizer, texts, options.chunking)
        return self.tokenizer.encode(texts, max_length=self._max_length)

    def _encode_window(self, tokens: TokenizedTexts | ChunkedTexts, options: EncodeOptions, budget: int, advance):
        if isinstance(tokens, ChunkedTexts):

            def part(some: TokenizedTexts, finished: bool, told) -> torch.Tensor:
                return self._encode_window(some, options if finished else options.unfinished(), budget, told)

            mode, finish = options.chunking.mode, options.finish
            return encode_chunked(tokens, mode, options.ends_normalized, part, finish, advance)
        prompt_length = options.prompt_length(self)
        out: list | torch.Tensor | None = None
        training = in_training(self)
        if training:
            self.eval()
        try:
            with torch.inference_mode():
                uncounted_id = self.model.encoder.config.uncounted_id
                for indices, batch, features in run_batches(
                    tokens, budget, self.device, lambda batch: self.model(batch, prompt_length), uncounted_id
                ):
                    if options.output_value == "sentence_embedding":
                        rows = options.finish(features.sentence_embedding).float().cpu()
                        if out is None:
                            out = torch.empty((len(tokens), rows.shape[1]))
                        out[torch.from_numpy(indices)] = rows
                    else:
                        if out is None:
                            out = [None] * len(tokens)
                        for index, item in zip(
                            indices, items_of(batch, features, options.finish, options.output_value), strict=True
                        ):
                            out[index] = item
                    advance(len(indices), batch.num_tokens)
        finally:
            for module in training:
                module.training = True
        return out.clone() if isinstance(out, torch.Tensor) else out

    # ---- beside encode --------------------------------------------------------------------------------------------

    def similarity(self, a, b) -> torch.Tensor:
        """[A, B] float32 by the model's similarity_fn_name; higher is more alike."""
        return similarity(a, b, self.similarity_fn_name)

    def similarity_pairwise(self, a, b) -> torch.Tensor:
        """[A] float32, row by row."""
        return similarity_pairwise(a, b, self.similarity_fn_name)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes a folder that sentence-transformers (2 to 6) and this class read; transformers reads its weights.

        Raises:
            ArgumentValueError: the weights are int8, which no such folder holds.
        """
        if self.dtype == torch.int8:
            raise ArgumentValueError(
                "save_pretrained of an int8 model; accepted: float32, bfloat16, float16. Folders hold the weights unrounded: "
                "save it from a model loaded with dtype='float32', and load that with dtype='int8'"
            )
        save_checkpoint(
            Path(folder),
            self.checkpoint,
            self.model.encoder.state_dict(),
            list(self.model.outputs),
            max_length=self._max_length,
            prompts=self.prompts,
            default_prompt_name=self.default_prompt_name,
            similarity_fn_name=self.similarity_fn_name,
            truncate_dim=self.truncate_dim,
        )
