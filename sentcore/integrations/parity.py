"""Our features against Hugging Face transformers, on the same folder and the same texts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from sentcore.errors import ArgumentTypeError, TruncationWarning
from sentcore.inputs.texts import check_texts
from sentcore.integrations.layer_parity import Distance, LayerParity, layer_distances
from sentcore.integrations.padded_outputs import padded_features
from sentcore.integrations.transformers_reference import Reference
from sentcore.placement import dtype_name
from sentcore.sentence_encoder import SentenceEncoder

DEFAULT_TEXTS = (
    "A quick brown fox jumps over the lazy dog.",
    "我爱北京天安门",
    "Der Mietvertrag läuft am 31. Dezember aus; die Kündigungsfrist beträgt drei Monate.",
    "L'été dernier, nous avons traversé les Alpes à vélo.",
    "吾輩は猫である。名前はまだ無い。",
    "Быстрая коричневая лиса прыгает через ленивую собаку.",
    "مرحبا بالعالم، كيف حالك اليوم؟",
    "नमस्ते दुनिया",
    "🎉👩‍👩‍👧 🇨🇳 emoji",
    "ok",
    "",
    "   \t\n",
    "def mean(xs): return sum(xs) / len(xs)  # 3.14, 1e-9",
    "The committee met again on Tuesday and put the question off once more. " * 60,
)

# What each dtype may differ by: (largest difference as a share of the reference's largest value, smallest cosine of
# token and sentence embeddings alike).
ACCEPTED = {
    torch.float32: (1e-5, 0.999999),
    torch.float16: (1e-2, 0.9999),
    torch.bfloat16: (1e-1, 0.999),
    torch.int8: (3e-1, 0.98),
    torch.float8_e4m3fn: (3e-1, 0.98),
}


@dataclass(frozen=True)
class ParityReport:
    """How far our features are from those of transformers in float32.

    Attributes:
        model: the folder compared.
        texts: how many texts.
        dtype, backend, device: what ours ran in.
        token_max_abs_diff, token_min_cosine: over all token embeddings.
        sentence_max_abs_diff, sentence_min_cosine: over all sentence embeddings.
        token_mean_cosine, sentence_mean_cosine: of the same, on average.
        nan_count: values of ours that are NaN or infinite.
        reference_nan_count: the same, of transformers.
        other_tokens: positions of texts that the two tokenizers cut differently; left out of the differences.
        passed: whether all of it is accepted.
        verdict: the same in words.
        layers: of `parity(layers=True)`, how far every stage is, in order; else empty.
        first_departure: the name of the first of them that differs by more than is accepted, or None.
    """

    model: str
    texts: int
    dtype: str
    backend: str
    device: str
    token_max_abs_diff: float
    token_min_cosine: float
    token_mean_cosine: float
    sentence_max_abs_diff: float
    sentence_min_cosine: float
    sentence_mean_cosine: float
    nan_count: int
    reference_nan_count: int
    other_tokens: tuple[int, ...]
    passed: bool
    verdict: str
    layers: tuple[LayerParity, ...] = ()
    first_departure: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON: a number that is not finite becomes None. Layers are in it where they were compared."""
        values = _finite(asdict(self))
        if self.layers:
            values["layers"] = [_finite(layer) for layer in values["layers"]]
        else:
            del values["layers"], values["first_departure"]
        return values

    def __str__(self) -> str:
        layers = "".join(f"  {layer}\n" for layer in self.layers)
        return (
            f"{self.model}: {self.texts} texts, {self.dtype} ({self.backend}, {self.device}) "
            "against transformers float32\n"
            f"  token embeddings     {self._figures('token')}\n"
            f"  sentence embeddings  {self._figures('sentence')}\n"
            f"  NaN or infinite      {self.nan_count} here, {self.reference_nan_count} in transformers\n{layers}"
            f"{self.verdict}"
        )

    def _figures(self, name: str) -> str:
        difference, smallest, mean = (
            getattr(self, f"{name}_{figure}") for figure in ("max_abs_diff", "min_cosine", "mean_cosine")
        )
        return f"max |Δ| {difference:.2e}   cosine: min {smallest:.7f}, mean {mean:.7f}"


def parity(
    model_or_folder: SentenceEncoder | str | Path, texts: Sequence[str] | None = None, *, layers: bool = False
) -> ParityReport:
    """Compares token and sentence embeddings with those of transformers in float32, padded, on the CPU.

    Args:
        model_or_folder: a SentenceEncoder, or what its constructor takes: "minilm", a folder, a hub id.
        texts: what to compare on; None takes a few built-in ones in several scripts, an empty and a long one among them.
            No prompt is put before them.
        layers: compare the hidden states of every layer too (transformers with eager attention), and name the first that
            differs.

    Raises:
        MissingPackageError: transformers is not installed.
        CheckpointError: transformers has no class for the folder's config.json, or cannot read the folder.
    """
    if isinstance(model_or_folder, (str, Path)):
        model_or_folder = SentenceEncoder(model_or_folder)
    if not isinstance(model_or_folder, SentenceEncoder):
        raise ArgumentTypeError(
            f"model_or_folder is of type {type(model_or_folder).__name__}; accepted: a SentenceEncoder, a folder or a hub id"
        )
    model = model_or_folder
    checked, _ = check_texts(list(DEFAULT_TEXTS) if texts is None else texts)
    reference = Reference(model, eager=layers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)  # both sides cut alike
        found = model.encode(checked, output_value=None, prompt="", show_progress_bar=False)
    ours = [{key: value.cpu() for key, value in item.items()} for item in found]
    theirs = _reference(reference, model, checked)
    same = [torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(ours, theirs, strict=True)]
    other = tuple(position for position, equal in enumerate(same) if not equal)
    stages = layer_distances(model, reference, checked, other) if layers else None
    return _report(model, ours, theirs, other, stages)


def _reference(reference: Reference, model: SentenceEncoder, texts: list[str]) -> list[dict[str, torch.Tensor]]:
    """input_ids [tokens], token_embeddings [tokens, H] and sentence_embedding [E] of every text."""
    found = []
    for _, batch in reference.batches(texts):
        mask = batch["attention_mask"]
        tokens = reference.last_hidden_state(batch)
        with torch.inference_mode():
            features = padded_features(tokens, mask, model.checkpoint.modules)
        if model.truncate_dim is not None:
            features = features[:, : model.truncate_dim]
        for row, length in enumerate(mask.sum(dim=1).tolist()):
            found.append(
                {
                    "input_ids": batch["input_ids"][row, :length],
                    "token_embeddings": tokens[row, :length],
                    "sentence_embedding": features[row],
                }
            )
    return found


def _report(
    model: SentenceEncoder,
    ours: list[dict[str, torch.Tensor]],
    theirs: list[dict[str, torch.Tensor]],
    other: tuple[int, ...],
    stages: dict[str, Distance] | None,
) -> ParityReport:
    def rows(items: list[dict[str, torch.Tensor]], key: str) -> torch.Tensor:
        kept = [item[key].double() for position, item in enumerate(items) if position not in other]
        width = items[0][key].shape[-1] if items else 0
        return torch.cat([row.reshape(-1, width) for row in kept] or [torch.zeros(0, width)])

    share, smallest = ACCEPTED[model.dtype]
    problems = []
    if not ours:
        problems.append("no texts were given, so nothing was compared")
    if other:
        problems.append(f"the tokens of texts {', '.join(map(str, other))} differ")
    figures: dict[str, float] = {}
    distances: dict[str, Distance] = {}
    nan_count = reference_nan_count = 0
    for name, key in (("token", "token_embeddings"), ("sentence", "sentence_embedding")):
        a, b = rows(ours, key), rows(theirs, key)
        nan_count += int((~a.isfinite()).sum())
        reference_nan_count += int((~b.isfinite()).sum())
        found = distances[name] = Distance().add(a, b)
        difference, cosine, limit = found.difference, found.cosine, found.accepted(share)
        figures |= {
            f"{name}_max_abs_diff": difference,
            f"{name}_min_cosine": cosine,
            f"{name}_mean_cosine": found.mean_cosine,
        }
        # Written so that NaN fails.
        if not difference <= limit:
            problems.append(f"{name} embeddings differ by {difference:.2e}, accepted: {limit:.2e}")
        if not cosine >= smallest:
            problems.append(f"a {name} embedding has cosine {cosine:.7f}, accepted: {smallest}")
    if nan_count:
        problems.append(f"{nan_count} values are NaN or infinite")
    layers: tuple[LayerParity, ...] = ()
    if stages is not None:
        stages = {**stages, "token embeddings": distances["token"], "pooling": distances["sentence"]}
        layers = tuple(found.judged(name, share, smallest) for name, found in stages.items())
    first = next((layer.name for layer in layers if not layer.passed), None)
    if first is not None:
        problems.append(f"the first to depart: {first}")
    verdict = (
        "differs: " + "; ".join(problems)
        if problems
        else f"agrees: within {share:g} of transformers float32 and cosine of at least {smallest}"
    )
    return ParityReport(
        model=str(model.checkpoint.folder),
        texts=len(ours),
        dtype=dtype_name(model.dtype),
        backend=model.backend,
        device=str(model.device),
        **figures,
        nan_count=nan_count,
        reference_nan_count=reference_nan_count,
        other_tokens=other,
        passed=not problems,
        verdict=verdict,
        layers=layers,
        first_departure=first,
    )


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and value - value != 0 else value for key, value in values.items()}
