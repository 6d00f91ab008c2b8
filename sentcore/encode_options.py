"""What a caller may ask of SentenceEncoder.encode, checked once and by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.inputs.chunks import Chunking
from sentcore.outputs import Normalize, Pooling, RowForm, check_precision, check_ranges, unit_rows

if TYPE_CHECKING:
    from sentcore.model import SentenceModel

OUTPUT_VALUES = ("sentence_embedding", "token_embeddings", "sparse", "colbert")


@dataclass(frozen=True)
class EncodeOptions:
    """The options of one call of `encode`, ready for use."""

    prompt: str | None
    wanted: tuple[str | None, ...]
    normalize: bool
    truncate_dim: int | None
    chunking: Chunking | None = None
    ends_normalized: bool = False
    precision: str = "float32"
    ranges: np.ndarray | None = None

    @classmethod
    def check(
        cls,
        encoder,
        prompt_name,
        prompt,
        output_value,
        precision,
        normalize,
        truncate_dim,
        chunk=None,
        chunk_overlap=None,
        ranges=None,
    ) -> EncodeOptions:
        """Checks them against `encoder`'s prompts and dimension; see SentenceEncoder.encode."""
        wanted = _wanted(output_value)
        for name in wanted:
            check_has(encoder.model, name)
        check_precision(precision)
        if truncate_dim is None:
            truncate_dim = encoder.truncate_dim
        if truncate_dim is not None and (
            isinstance(truncate_dim, bool) or not isinstance(truncate_dim, int) or truncate_dim < 1
        ):
            raise ArgumentValueError(f"truncate_dim is {truncate_dim!r}; accepted: an integer of at least 1, or None")
        prompt = pick_prompt(encoder, prompt_name, prompt)
        if chunk is not None and wanted != ("sentence_embedding",):
            raise ArgumentValueError(
                f"chunk is {chunk!r} and output_value {output_value!r}; accepted with chunk: 'sentence_embedding', the only "
                "one that windows of a text are pooled to"
            )
        chunking = Chunking.check(encoder.tokenizer, prompt, encoder.max_seq_length, chunk, chunk_overlap)
        stages = encoder.model.outputs
        ends_normalized = len(stages) > 0 and isinstance(stages[-1], Normalize)
        dimension = encoder.checkpoint.sentence_embedding_dimension
        ranges = check_ranges(ranges, precision, min(dimension, truncate_dim or dimension))
        return cls(prompt, wanted, normalize, truncate_dim, chunking, ends_normalized, precision, ranges)

    @classmethod
    def check_rows(
        cls,
        encoder,
        prompt_name=None,
        prompt=None,
        normalize_embeddings=False,
        truncate_dim=None,
        chunk=None,
        chunk_overlap=None,
    ) -> EncodeOptions:
        """The same for float32 rows of sentence features."""
        wanted = (prompt_name, prompt, "sentence_embedding", "float32")
        return cls.check(encoder, *wanted, normalize_embeddings, truncate_dim, chunk, chunk_overlap)

    def width(self, encoder) -> int:
        """E', columns of a sentence feature."""
        dimension = encoder.get_sentence_embedding_dimension()
        return dimension if self.truncate_dim is None else min(dimension, self.truncate_dim)

    def prompt_length(self, encoder) -> int:
        """Tokens of the prompt that a pooling without prompts leaves out."""
        leaves_out = any(
            isinstance(stage, Pooling) and not stage.spec.include_prompt for stage in encoder.model.outputs
        )
        return encoder.tokenizer.prompt_length(self.prompt) if leaves_out and self.prompt else 0

    def row_form(self, device: torch.device) -> RowForm | None:
        """What can be made of features on `device`, or None where rows are finished stage by stage: the same bits.

        int8 and uint8 without ranges need all rows first. float32 rows gain fewer launches, on a GPU alone.
        """
        if self.wanted != ("sentence_embedding",) or self.chunking is not None or device.type not in ("cpu", "cuda"):
            return None
        by_rows = self.precision in ("binary", "ubinary") or self.ranges is not None
        if not by_rows and device.type == "cpu":
            return None
        ranges = None if self.ranges is None else torch.from_numpy(self.ranges).to(device)
        return RowForm(self.truncate_dim, self.normalize, self.precision if by_rows else "float32", ranges)

    def finish(self, features: torch.Tensor) -> torch.Tensor:
        """[B, E] -> [B, E'], truncated and then normalized as asked."""
        if self.truncate_dim is not None:
            features = features[:, : min(self.truncate_dim, features.shape[1])]
        return unit_rows(features) if self.normalize else features


def check_has(model: SentenceModel, name: str | None) -> None:
    """`model` computes the output of that name, or an ArgumentValueError that says what it has."""
    has = {
        "sentence_embedding": bool(model.outputs),
        "token_embeddings": True,
        "sparse": model.sparse is not None,
        "colbert": model.colbert is not None,
    }
    if has["sentence_embedding" if name is None else name]:
        return
    if name in ("sparse", "colbert"):
        remedy = f"Its folder holds no {name}_linear.pt" + (" and names no SpladePooling" if name == "sparse" else "")
    else:
        remedy = (
            "Its folder names no Pooling: use output_value='sparse', or load the encoder from a folder with pooling"
        )
    accepted = ", ".join(repr(other) for other, there in has.items() if there)
    raise ArgumentValueError(f"output_value is {name!r}; accepted for this model: {accepted}. {remedy}")


def _wanted(output_value: object) -> tuple[str | None, ...]:
    if output_value is None or output_value in OUTPUT_VALUES:
        return (output_value,)
    names = tuple(output_value) if isinstance(output_value, (list, tuple)) else ()
    if not names or any(name not in OUTPUT_VALUES for name in names) or len(set(names)) < len(names):
        raise ArgumentValueError(
            f"output_value is {output_value!r}; accepted: {', '.join(map(repr, OUTPUT_VALUES))}, a list of these, each "
            "once, or None"
        )
    return names


def pick_prompt(encoder, prompt_name: str | None, prompt: str | None) -> str | None:
    """The prompt's text: the one given, or that of the name, or the model's default; None for none."""
    if prompt is not None:
        if not isinstance(prompt, str):
            raise ArgumentTypeError(f"prompt is {prompt!r} of type {type(prompt).__name__}; accepted: a text or None")
        return prompt
    name = encoder.default_prompt_name if prompt_name is None else prompt_name
    if name is None:
        return None
    if name not in encoder.prompts:
        known = ", ".join(repr(key) for key in encoder.prompts) or "none"
        raise ArgumentValueError(
            f"prompt_name is {name!r}; accepted: a name in the model's prompts ({known}), or prompt= with the text itself"
        )
    return encoder.prompts[name]
