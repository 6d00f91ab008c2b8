"""A folder's encoder and tokenizer as transformers builds them, to compare with; refused where it builds something else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from sentcore.errors import CheckpointError, MissingPackageError
from sentcore.sentence_encoder import SentenceEncoder

BATCH = 16  # texts that are padded together


class Reference:
    """transformers' own tokenizer and encoder of a SentenceEncoder's folder, float32 on the CPU.

    Args:
        model: whose folder.
        eager: attention as plain matrix products, which hidden states are compared with; False leaves it to transformers.

    Raises:
        MissingPackageError: transformers is not installed.
        CheckpointError: transformers has no class for the folder, or cannot read it.
    """

    def __init__(self, model: SentenceEncoder, *, eager: bool = False) -> None:
        transformers = _transformers()
        folder = model.checkpoint.tokenizer_folder  # where its config.json and weights lie too
        custom = custom_code(model.checkpoint.hf_config)
        if custom is not None:
            raise CheckpointError(
                f"{folder}/config.json: {custom} is built by code on the hub and by no class of transformers, so there is "
                "nothing to compare with; compare with vectors that the model's publisher gives"
            )
        chosen = {"attn_implementation": "eager"} if eager else {}
        try:
            with quiet(transformers):
                self.tokenizer = transformers.AutoTokenizer.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False
                )
                self.encoder, loading = transformers.AutoModel.from_pretrained(
                    folder,
                    local_files_only=True,
                    trust_remote_code=False,
                    dtype=torch.float32,
                    output_loading_info=True,
                    **chosen,
                )
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            raise CheckpointError(
                f"{folder}: transformers {transformers.__version__} cannot read this folder, so there is nothing to compare "
                f"with ({error}); compare with a folder that holds its tokenizer and weights"
            ) from error
        random = sorted(name for name in loading["missing_keys"] if not name.startswith("pooler"))
        if random:
            raise CheckpointError(
                f"{folder}: transformers {transformers.__version__} builds another model of this config.json and finds no weights "
                f"for {', '.join(random[:3])} and {max(0, len(random) - 3)} more, so there is nothing to compare with; compare with "
                "the code that the model was published with"
            )
        self.encoder.eval()
        self._max_length = model.max_seq_length
        self._lower = model.checkpoint.do_lower_case

    def batches(self, texts: list[str]) -> Iterator[tuple[int, Any]]:
        """(position of its first text, padded batch on the right) of BATCH texts at a time."""
        if self._lower:
            texts = [text.lower() for text in texts]
        for first in range(0, len(texts), BATCH):
            yield (
                first,
                self.tokenizer(
                    texts[first : first + BATCH],
                    padding=True,
                    padding_side="right",
                    truncation=True,
                    max_length=self._max_length,
                    return_tensors="pt",
                ),
            )

    def last_hidden_state(self, batch: Any) -> torch.Tensor:
        """[B, S, H]."""
        with torch.inference_mode():
            return self.encoder(**batch).last_hidden_state.float()

    def hidden_states(self, batch: Any) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """[B, S, H] behind the embeddings and every layer, the last one the last_hidden_state, and what the final norm was
        given; None where the architecture has none."""
        before: list[torch.Tensor] = []
        norm = getattr(self.encoder, "final_norm", None)
        hook = None if norm is None else norm.register_forward_pre_hook(lambda _, given: before.append(given[0]))
        try:
            with torch.inference_mode():
                out = self.encoder(**batch, output_hidden_states=True)
        finally:
            if hook is not None:
                hook.remove()
        return [*out.hidden_states[:-1], out.last_hidden_state], before[0] if before else None


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingPackageError(
            f"parity compares with the package transformers, which cannot be imported ({error}); pip install transformers"
        ) from error
    return transformers


def custom_code(values: dict) -> str | None:
    """What in a config.json only code on the hub builds, in words; None where transformers has a class.

    transformers itself would refuse some of these, and build BERT or random weights of others.
    """
    kind = values.get("model_type")
    if kind == "new":
        return "model_type 'new' (Alibaba-NLP's own)"
    if kind == "bert" and values.get("position_embedding_type") == "alibi":
        return "model_type 'bert' with ALiBi positions (Jina's own)"
    if kind == "nomic_bert" and "n_embd" in values:
        return "model_type 'nomic_bert' with n_embd (nomic-ai's own form of the config)"
    return None


@contextlib.contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """transformers without its bars and its notes on a pooler that nobody asked for."""
    logging = transformers.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
