"""SentenceEncoder: the face. A model folder, its tokenizer, the model, and the pipeline behind one object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from sentcore.checkpoint.build import build_model
from sentcore.checkpoint.load import load_checkpoint
from sentcore.checkpoint.pooling import with_pooling
from sentcore.checkpoint.resolve import resolve
from sentcore.checkpoint.save import refuse_rounded, save_checkpoint
from sentcore.encode_options import EncodeOptions, check_has
from sentcore.face import Face
from sentcore.inputs.texts import check_texts
from sentcore.inputs.tokenizer import Tokenizer
from sentcore.outputs.colbert import colbert_similarity
from sentcore.outputs.similarity import check_similarity_fn, similarity, similarity_pairwise
from sentcore.outputs.sparse import sparse_similarity
from sentcore.outputs.specs import LinearSpec
from sentcore.packed import PackedBatch
from sentcore.pipeline import (
    Call,
    HoldsGraphs,
    Progress,
    WorkerPool,
    as_workers,
    check_batch_tokens,
    check_devices,
    checked_lists,
    hand_over,
    progress_bar,
    window_sizes,
    windows,
)
from sentcore.placement import (
    check_batch_invariant,
    check_cuda_graphs,
    check_move,
    pick_backend,
    pick_device,
    pick_dtype,
)
from sentcore.word_cutters import WordCutter, word_cutter


class SentenceEncoder(Face, HoldsGraphs):
    """Sentences to features, with the weights and the semantics of a sentence-transformers folder.

    Args:
        model_name_or_path: "minilm" (the default model, extra `[minilm]`), a local folder (sentence-transformers layout or
            a bare Hugging Face checkpoint), or a hub id.
        device: "cpu", "cuda", "cuda:1", ...; None takes a GPU where torch sees one.
        dtype: "auto" (float32), "float32", "bfloat16" or "float16" (GPUs), of weights and activations; "int8" (CPUs):
            linear layers in 8 bits, weights rounded per output and activations per token, the rest in bfloat16, for
            inference alone; "fp8" (GPUs of compute capability 8.9 and later): the same in 8-bit floating point (e4m3); on a CPU
            with backend="reference" alone, to compare. LayerNorm, softmax and pooling are computed in float32 always.
        backend: "auto", "native" (an error where the compiled kernels are absent) or "reference" (plain PyTorch).
        max_length: tokens a text is cut at; None takes the folder's.
        batch_invariant: True guarantees a sentence the same bits alone, in any batch or order and on any number of threads,
            or refuses where that does not hold, at no cost: on CPUs and NVIDIA GPUs with compiled kernels (on a GPU not yet tried).
        revision: branch, tag or commit of a hub id.
        local_files_only: never ask the hub.
        pooling: modes instead of the folder's: sentence-transformers' six, "first_last_avg" or "avg_top2"; several are concatenated.
        words: "jieba" (extra `[chinese]`) or a callable that cuts CJK text into words, for vocabularies that hold words.
        cuda_graphs: True replays captured CUDA graphs for batches of up to 32 sentences and 2,047 tokens, whose launches take
            longer than their work; on GPUs with compiled kernels. Not yet run on a GPU.

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
        cuda_graphs: bool = False,
    ) -> None:
        super().__init__()
        chosen_device = pick_device(device)
        chosen_dtype = pick_dtype(dtype, chosen_device, backend)
        self.backend = pick_backend(backend)
        if batch_invariant:
            check_batch_invariant(chosen_device, chosen_dtype, backend)
        self.use_graphs(check_cuda_graphs(cuda_graphs, chosen_device, backend))
        folder = resolve(model_name_or_path, revision=revision, local_files_only=local_files_only)
        checkpoint = self.checkpoint = with_pooling(load_checkpoint(folder), pooling)
        self.max_seq_length = max_length
        self.tokenizer = Tokenizer.from_folder(
            *(checkpoint.tokenizer_folder, self.max_seq_length, checkpoint.do_lower_case, word_cutter(words)),
            vocab_size=checkpoint.config.vocab_size,
        )
        self.prompts: dict[str, str] = dict(checkpoint.prompts)
        self.default_prompt_name: str | None = checkpoint.default_prompt_name
        self.truncate_dim: int | None = checkpoint.truncate_dim
        self.similarity_fn_name = check_similarity_fn(checkpoint.similarity_fn_name or "cosine")
        names = checkpoint.heads.special_tokens
        left_out = self.tokenizer.special_ids(names) if isinstance(checkpoint.heads.sparse, LinearSpec) else ()
        self.model = build_model(checkpoint, backend, chosen_device, chosen_dtype, left_out)
        checkpoint.state_dict.clear()  # the model holds the weights now, perhaps in another dtype
        self.eval()

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """[B, E] sentence features of a packed batch, differentiable in training; an error for a model without pooling."""
        check_has(self.model, "sentence_embedding")
        if self.graphs is not None:
            return self.graphs(self.model, batch, every_row=True)
        return self.model(batch).sentence_embedding

    def get_sentence_embedding_dimension(self) -> int:
        """E, after truncate_dim; an error for a model without pooling."""
        check_has(self.model, "sentence_embedding")
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
        output_value: str | list[str] | None = "sentence_embedding",
        precision: str = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | torch.device | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        chunk: str | None = None,
        chunk_overlap: int | None = None,
        ranges: np.ndarray | None = None,
        devices: Sequence[str] | WorkerPool | None = None,
    ) -> np.ndarray | torch.Tensor | list | dict:
        """Features of sentences, in their order, as sentence-transformers' `encode` gives them.

        Args:
            sentences: a text or a sequence of texts.
            prompt_name: a name in `prompts`; its text is put before every sentence.
            prompt: the text itself, instead of prompt_name.
            batch_tokens: tokens computed at once, which bounds memory; None for a default by device and model.
            show_progress_bar: None shows one for long work on a terminal.
            output_value: "sentence_embedding", "token_embeddings", "sparse", "colbert", a list of these, computed in one pass, or
                None for a dict of everything dense per sentence. The options below concern sentence embeddings.
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
            devices: one process for each of these, as ["cuda:0", "cuda:1"] or ["cpu"] * 4, or what `start_workers` gave; for
                sentence embeddings.

        Returns:
            [B, E] float32 (or `precision`); one row for one text. "token_embeddings": a list of [tokens, H] tensors. "sparse": a
            list of dicts {token id: weight}. "colbert": a list of [tokens - 1, E] float32, converted as rows are. For a list
            of names a dict, name -> what that name alone gives. One text gives single items.

        Raises:
            ArgumentTypeError, ArgumentValueError: a bad text by its position, a bad option by its name.
        """
        texts, single = check_texts(sentences)
        options = EncodeOptions.check(
            *(self, prompt_name, prompt, output_value, precision, normalize_embeddings),
            *(truncate_dim, chunk, chunk_overlap, ranges),
        )
        if device is not None:
            self.to(check_move(self, device))
        budget = check_batch_tokens(batch_tokens, self.device, self.model.encoder.config)
        with (
            as_workers(devices, options.wanted, self.start_workers) as workers,
            progress_bar(len(texts), show_progress_bar) as bar,
        ):
            call = Call(self, options, budget, bar.advance)
            parts = list(call.run(windows(texts, *window_sizes(len(texts), workers, self.device)), workers))
        call.warn()
        target = self.device if convert_to_tensor else "numpy" if convert_to_numpy else "list"
        results = {}
        for name in options.wanted:
            found = [part[name] for part in parts if name in part]
            if name == "sentence_embedding" and not found:
                found = [torch.empty((0, options.width(self)))]
            results[name] = hand_over(name, found, precision, options.ranges, target)
        if single:
            results = {name: result[0] for name, result in results.items()}
        return results if isinstance(output_value, (list, tuple)) else results[output_value]

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
        devices: Sequence[str] | WorkerPool | None = None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Features of any number of texts in bounded memory.

        Yields:
            (index [b] int64, rows [b, E] float32) for consecutive blocks of at most `window` texts, in order. The next
            block is read and tokenized while one is computed. A bad text is an error that names its position; the blocks
            before it have been given.
        """
        first = 0
        for rows in self.encode_windows(
            *(windows(sentences, window), batch_tokens, show_progress_bar, devices),
            **{"prompt_name": prompt_name, "prompt": prompt, "normalize_embeddings": normalize_embeddings},
            **{"truncate_dim": truncate_dim, "chunk": chunk, "chunk_overlap": chunk_overlap},
        ):
            yield np.arange(first, first + len(rows), dtype=np.int64), rows
            first += len(rows)

    def encode_windows(
        self,
        lists: Iterable[list[str]],
        batch_tokens: int | None = None,
        show_progress_bar: bool | Progress | None = None,
        devices: Sequence[str] | WorkerPool | None = None,
        **options,
    ) -> Iterator[np.ndarray]:
        """`encode_iter`, with its options, for texts that come in lists already: [b, E] float32 of each list, in order.

        A list's features depend on no other list, so lists of fixed size can be made again one by one with the same bits.
        """
        options = EncodeOptions.check_rows(self, **options)
        budget = check_batch_tokens(batch_tokens, self.device, self.model.encoder.config)
        with (
            as_workers(devices, options.wanted, self.start_workers) as workers,
            progress_bar(None, show_progress_bar) as bar,
        ):
            call = Call(self, options, budget, bar.advance)
            for outputs in call.run(checked_lists(lists), workers):
                rows = outputs.get("sentence_embedding")
                yield np.empty((0, options.width(self)), np.float32) if rows is None else rows.numpy()
        call.warn()

    def start_workers(self, devices: Sequence[str]) -> WorkerPool:
        """Processes that `encode(..., devices=pool)` uses in any number of calls, each with these weights as they are now.

        A context manager; `close()` ends them. One that dies is said and replaced, and its texts are computed again.

        Args:
            devices: of each process: ["cuda:0", "cuda:1"], ["cpu"] * 4, ...
        """
        return WorkerPool(self, [check_move(self, device) for device in check_devices(devices)])

    def similarity(self, a, b) -> torch.Tensor:
        """[A, B] float32 by the model's similarity_fn_name; higher is more alike."""
        return similarity(a, b, self.similarity_fn_name)

    def similarity_pairwise(self, a, b) -> torch.Tensor:
        """[A] float32, row by row."""
        return similarity_pairwise(a, b, self.similarity_fn_name)

    def decode_sparse(self, row: dict[int, float]) -> dict[str, float]:
        """{token id: weight} -> {token: weight}; an id that the tokenizer has no token for becomes "[id 7]"."""
        return dict(zip(self.tokenizer.tokens(list(row)), row.values(), strict=True))

    sparse_similarity = staticmethod(sparse_similarity)
    colbert_similarity = staticmethod(colbert_similarity)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes a folder that sentence-transformers (2 to 6) and this class read; transformers reads its weights.

        Raises:
            ArgumentValueError: the weights are int8 or fp8, which no such folder holds.
        """
        refuse_rounded(self.dtype)
        save_checkpoint(
            Path(folder),
            self.checkpoint,
            self.model,
            max_length=self.max_seq_length,
            prompts=self.prompts,
            default_prompt_name=self.default_prompt_name,
            similarity_fn_name=self.similarity_fn_name if self.model.outputs else self.checkpoint.similarity_fn_name,
            truncate_dim=self.truncate_dim,
        )
