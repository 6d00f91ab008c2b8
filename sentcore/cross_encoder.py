"""CrossEncoder: pairs of texts to scores, from a model folder with a classification head."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sentcore.checkpoint.activations import Activation, activation_name, default_activation
from sentcore.checkpoint.build import build_classifier
from sentcore.checkpoint.cross_encoder import CrossEncoderCheckpoint, load_cross_encoder
from sentcore.checkpoint.resolve import resolve
from sentcore.checkpoint.save import refuse_rounded
from sentcore.checkpoint.save_cross_encoder import save_cross_encoder
from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.face import Face
from sentcore.inputs.pairs import check_documents, check_pairs
from sentcore.inputs.tokenizer import Tokenizer
from sentcore.packed import PackedBatch, TokenizedTexts
from sentcore.pipeline import (
    Lane,
    TokenBudget,
    check_batch_tokens,
    evaluating,
    lane_to,
    note_memory,
    one_ahead,
    progress_bar,
    report_non_finite,
    run_batches,
    run_in_flight,
    windows,
)
from sentcore.placement import pick_backend, pick_device, pick_dtype


class CrossEncoder(Face, nn.Module):
    """Scores of pairs of texts that the encoder reads together, as for reranking (Nogueira & Cho 2019,
    https://arxiv.org/abs/1901.04085), with the weights and the semantics of sentence-transformers' CrossEncoder.

    Args:
        model_name_or_path: a local folder or a hub id of a ...ForSequenceClassification checkpoint.
        device: "cpu", "cuda", "cuda:1", ...; None takes a GPU where torch sees one.
        dtype: "auto" (float32), "float32", "bfloat16", "float16" (GPUs), "int8" (CPUs, inference alone) or "fp8" (GPUs of
            compute capability 8.9 and later, inference alone), of the encoder. The head, LayerNorm, softmax and pooling are computed in float32 always.
        backend: "auto", "native" (an error where the compiled kernels are absent) or "reference" (plain PyTorch).
        max_length: tokens a pair is cut at; None takes the folder's.
        revision: branch, tag or commit of a hub id.
        local_files_only: never ask the hub.
        activation_fn: applied to the scores in `predict`; None takes the folder's, or without one a sigmoid where there is
            one label and nothing where there are several.

    Attributes:
        activation_fn: the one in use.
        tokenizer: a sentcore Tokenizer.

    Raises:
        SentcoreError: one of its kinds, with the file or argument, the value found, what is accepted and the remedy.
    """

    def __init__(
        self,
        model_name_or_path: str | Path,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        backend: str = "auto",
        max_length: int | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        activation_fn: Activation | None = None,
    ) -> None:
        super().__init__()
        chosen_device = pick_device(device)
        chosen_dtype = pick_dtype(dtype, chosen_device, backend)
        self.backend = pick_backend(backend)
        checkpoint = load_cross_encoder(
            resolve(model_name_or_path, revision=revision, local_files_only=local_files_only)
        )
        self.checkpoint: CrossEncoderCheckpoint = checkpoint
        self.activation_fn = default_activation(checkpoint) if activation_fn is None else activation_fn
        self.max_seq_length = max_length
        self.tokenizer = Tokenizer.from_folder(
            checkpoint.tokenizer_folder,
            max_length=self.max_seq_length,
            do_lower_case=checkpoint.do_lower_case,
            vocab_size=checkpoint.config.vocab_size,
        )
        self.model = build_classifier(checkpoint, backend, chosen_device, chosen_dtype)
        checkpoint.state_dict.clear()  # the model holds the weights now, perhaps in another dtype
        checkpoint.head_state.clear()
        self.eval()

    def __setattr__(self, name: str, value: object) -> None:
        if name == "activation_fn":
            if not callable(value):
                raise ArgumentTypeError(
                    f"activation_fn is {value!r} of type {type(value).__name__}; accepted: a function of a tensor, such as "
                    "torch.nn.Sigmoid() or torch.sigmoid"
                )
            object.__setattr__(self, name, value)  # no submodule: a plain function may take its place later
        else:
            super().__setattr__(name, value)

    # ---- in a training loop ---------------------------------------------------------------------------------------

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """[B, num_labels] float32 logits of a packed batch, before activation_fn, differentiable in training."""
        return self.model(batch)

    @property
    def num_labels(self) -> int:
        """Scores a pair gets."""
        return self.model.head.spec.num_labels

    @property
    def id2label(self) -> dict[int, str]:
        """[num_labels] number -> name."""
        return dict(self.checkpoint.id2label)

    # ---- scores ---------------------------------------------------------------------------------------------------

    def predict(
        self,
        sentences: Iterable,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
        apply_softmax: bool = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
    ) -> np.ndarray | torch.Tensor | list[torch.Tensor]:
        """Scores of pairs, in their order, as sentence-transformers' `predict` gives them.

        Args:
            sentences: a pair of texts, or a sequence of pairs.
            batch_tokens: tokens computed at once, which bounds memory; None for a default by device and model.
            show_progress_bar: None shows one for long work on a terminal.
            activation_fn: of this call, on [B, num_labels] float32; None for the model's.
            apply_softmax: with several labels, softmax over them behind the activation.
            convert_to_numpy: a NumPy array; else, without convert_to_tensor, a list of tensors.
            convert_to_tensor: one tensor on the model's device; wins over convert_to_numpy.

        Returns:
            [B] float32 with one label, else [B, num_labels]; one entry for one pair.

        Raises:
            ArgumentTypeError, ArgumentValueError: a bad pair by its position, a bad option by its name.
        """
        pairs, single = check_pairs(sentences)
        scores = self._scores(pairs, batch_tokens, show_progress_bar, activation_fn, apply_softmax)
        if convert_to_tensor:
            scores = scores.to(self.device)
        elif convert_to_numpy:
            # No pair gives what sentence-transformers gives for none: an empty array of NumPy's own dtype.
            scores = scores.numpy() if len(pairs) else np.array([])
        else:
            scores = list(scores.to(self.device))
        return scores[0] if single else scores

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_k: int | None = None,
        return_documents: bool = False,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
        apply_softmax: bool = False,
    ) -> list[dict]:
        """Documents by their score to a query, best first, as sentence-transformers' `rank` gives them.

        Args:
            query: one text.
            documents: texts.
            top_k: how many to return; None for all.
            return_documents: put the document's text into each entry.
            apply_softmax: without effect, as there: one label has no others to weigh against.
            The rest is `predict`'s.

        Returns:
            [{"corpus_id": position in documents, "score": float, "text": only with return_documents}].

        Raises:
            ArgumentValueError: the model has several labels, which are no order.
            ArgumentTypeError, ArgumentValueError: a bad document by its position, a bad option by its name.
        """
        if self.num_labels != 1:
            raise ArgumentValueError(
                f"rank of a model with {self.num_labels} labels; accepted: a model with one. Use predict on pairs, and choose "
                "a label"
            )
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
            raise ArgumentValueError(f"top_k is {top_k!r}; accepted: an integer of at least 1, or None for all")
        pairs = check_documents(query, documents)
        scores = self._scores(pairs, batch_tokens, show_progress_bar, activation_fn, apply_softmax).tolist()
        results = [{"corpus_id": index, "score": score} for index, score in enumerate(scores)]
        if return_documents:
            for entry, (_, document) in zip(results, pairs, strict=True):
                entry["text"] = document
        return sorted(results, key=lambda entry: entry["score"], reverse=True)[:top_k]

    def _scores(
        self,
        pairs: list[tuple[str, str]],
        batch_tokens: int | None,
        show_progress_bar: bool | None,
        activation_fn: Activation | None,
        apply_softmax: bool,
    ) -> torch.Tensor:
        """[B] or [B, num_labels] float32 on the CPU, or whatever shape activation_fn makes of them."""
        if activation_fn is None:
            activation_fn = self.activation_fn
        elif not callable(activation_fn):
            raise ArgumentTypeError(
                f"activation_fn is {activation_fn!r} of type {type(activation_fn).__name__}; accepted: a function of a tensor"
            )
        budget = TokenBudget(check_batch_tokens(batch_tokens, self.device, self.model.encoder.config))
        if not pairs:
            return torch.empty(0)
        logits = torch.empty((len(pairs), self.num_labels))
        first, lane = 0, lane_to(self.device)
        with progress_bar(len(pairs), show_progress_bar) as bar:
            for tokens in one_ahead(windows(pairs), self._tokenize):
                self._compute(tokens, budget, lane, logits[first : first + len(tokens)], bar.advance)
                first += len(tokens)
        report_non_finite(logits)
        note_memory(budget)
        scores = activation_fn(logits)
        if self.num_labels == 1 and scores.dim() > 1:
            scores = scores.squeeze(-1)
        return torch.softmax(scores, dim=1) if apply_softmax and scores.dim() > 1 else scores

    def _tokenize(self, pairs: list[tuple[str, str]]) -> TokenizedTexts:
        return self.tokenizer.encode_pairs(pairs, self.max_seq_length, token_types=self.checkpoint.token_types)

    def _compute(
        self, tokens: TokenizedTexts, budget: TokenBudget, lane: Lane | None, out: torch.Tensor, advance
    ) -> None:
        def logits_of(batch: PackedBatch) -> torch.Tensor:
            return self.model(batch).float()

        uncounted_id = self.model.encoder.config.uncounted_id
        if lane is not None and int(tokens.offsets[-1] - tokens.offsets[0]) > budget.now:
            batches = run_in_flight(tokens, budget, lane, logits_of, uncounted_id)
        else:
            one_by_one = run_batches(tokens, budget, self.device, lambda batch: logits_of(batch).cpu(), uncounted_id)
            batches = ((indices, batch.num_tokens, logits) for indices, batch, logits in one_by_one)
        with evaluating(self, self.model), torch.inference_mode():
            for indices, count, logits in batches:
                out[torch.from_numpy(indices)] = logits
                advance(len(indices), count)

    # ---- beside scores --------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes a folder that sentence-transformers (4 to 6), transformers and this class read.

        Raises:
            ArgumentValueError: the weights are int8 or fp8, or activation_fn is none that such a folder can name.
        """
        refuse_rounded(self.dtype)
        save_cross_encoder(
            Path(folder),
            self.checkpoint,
            self.model.encoder.state_dict(),
            self.model.head.state_dict(),
            max_length=self.max_seq_length,
            activation=activation_name(self.activation_fn),
        )
