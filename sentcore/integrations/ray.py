"""Ray Data: a feature column on a dataset of any size, computed by actors that hold the model, on one machine or many.

The module is called ray as the package is; it is `sentcore.integrations.ray`, and imports here are absolute.
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sentcore.errors import ArgumentTypeError, ArgumentValueError, MissingPackageError
from sentcore.sentence_encoder import SentenceEncoder

if TYPE_CHECKING:
    import pyarrow
    import ray.data

BATCH_ROWS = 4096  # sentences of like length are put together within these

_NOT_OPTIONS = ("self", "model_name_or_path", "device", "sentences", "output_value", "show_progress_bar")
_NOT_OPTIONS += ("convert_to_numpy", "convert_to_tensor")


def _names(function: Any) -> tuple[str, ...]:
    return tuple(name for name in inspect.signature(function).parameters if name not in _NOT_OPTIONS)


MODEL_OPTIONS = _names(SentenceEncoder.__init__)
ENCODE_OPTIONS = _names(SentenceEncoder.encode)


def embed(
    dataset: ray.data.Dataset,
    *,
    model: str | Path = "minilm",
    column: str = "text",
    output_column: str = "embedding",
    num_gpus: float | None = None,
    num_cpus: float | None = None,
    concurrency: int | tuple[int, int] = 1,
    batch_size: int = BATCH_ROWS,
    **options: Any,
) -> ray.data.Dataset:
    """The dataset with one column more: the feature of every row's text.

    Args:
        dataset: any ray.data.Dataset; it is not run here, but for its schema.
        model: as for SentenceEncoder: "minilm", a hub id, or a folder that every node sees under this path.
        column: the one that holds the texts; null is refused.
        output_column: [E] a row, a tensor column of float32 (or of `precision`).
        num_gpus: GPUs of one actor, 1 or a fraction; None or 0 computes on CPUs.
        num_cpus: CPUs of one actor, which are its threads; None for Ray's own default.
        concurrency: actors, each with the model in memory; (least, most) lets Ray choose.
        batch_size: rows given to an actor at once.
        options: SentenceEncoder's (dtype, backend, max_length, pooling, words, revision, local_files_only) and those of its
            `encode` (prompt, prompt_name, batch_tokens, precision, ranges, normalize_embeddings, truncate_dim, chunk, ...).

    Returns:
        A lazy dataset, with the rows of the one given, each once. A node that is lost has its rows computed again elsewhere.

    Raises:
        MissingPackageError: Ray Data is not installed.
        ArgumentTypeError, ArgumentValueError: by argument, before any work. What an actor refuses (a bad folder, a row without
            a text) is raised by Ray when the dataset is run, with the named error in it.
    """
    try:
        import pyarrow  # noqa: F401
        from ray.data import ActorPoolStrategy, Dataset
    except ImportError as error:
        raise MissingPackageError(
            f"Ray Data is not installed ({error}); pip install 'sentcore[ray]', on every node of the cluster"
        ) from error
    if not isinstance(dataset, Dataset):
        raise ArgumentTypeError(f"dataset is of type {type(dataset).__name__}; accepted: a ray.data.Dataset")
    model_options, encode_options = _divided(options)
    least, most = _pool(concurrency)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ArgumentValueError(f"batch_size is {batch_size!r}; accepted: an integer of at least 1")
    _check_columns(dataset, column, output_column)
    folder = Path(model).expanduser()
    return dataset.map_batches(
        Embed,
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=least) if least == most else ActorPoolStrategy(min_size=least, max_size=most),
        num_gpus=num_gpus,
        num_cpus=num_cpus,
        fn_constructor_kwargs={
            "model": os.path.abspath(folder) if folder.is_dir() else str(model),  # an actor has another working folder
            "device": "cuda" if num_gpus else "cpu",
            "column": column,
            "output_column": output_column,
            "model_options": model_options,
            "encode_options": encode_options,
        },
    )


class Embed:
    """One actor: the model, loaded once, and tables through it."""

    def __init__(
        self,
        model: str,
        device: str,
        column: str,
        output_column: str,
        model_options: dict[str, Any],
        encode_options: dict[str, Any],
    ) -> None:
        self._model = SentenceEncoder(model, device=device, **model_options)
        self._column, self._output_column, self._options = column, output_column, encode_options

    def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
        """The table with the feature column at its end."""
        import pyarrow

        if self._output_column in table.column_names:  # a block with other columns than the schema told
            raise ArgumentValueError(
                f"output_column is {self._output_column!r}, which a block of the dataset has already"
            )
        texts = table.column(self._column).to_pylist()
        rows = np.ascontiguousarray(self._model.encode(texts, show_progress_bar=False, **self._options))
        return table.append_column(self._output_column, pyarrow.FixedShapeTensorArray.from_numpy_ndarray(rows))


def _divided(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(SentenceEncoder's options, encode's)."""
    unknown = sorted(options.keys() - {*MODEL_OPTIONS, *ENCODE_OPTIONS})
    if unknown:
        raise ArgumentTypeError(
            f"{unknown[0]} is no option here; accepted: {', '.join((*MODEL_OPTIONS, *ENCODE_OPTIONS))}. The device follows "
            "from num_gpus"
        )
    if options.get("precision") in ("int8", "uint8") and options.get("ranges") is None:
        raise ArgumentValueError(
            f"precision is {options['precision']!r} without ranges; accepted: with ranges= (sentcore.outputs.calibration_ranges), "
            "as otherwise every batch would be scaled by its own values"
        )
    return (
        {name: value for name, value in options.items() if name in MODEL_OPTIONS},
        {name: value for name, value in options.items() if name in ENCODE_OPTIONS},
    )


def _pool(concurrency: object) -> tuple[int, int]:
    pair = concurrency if isinstance(concurrency, tuple) else (concurrency, concurrency)
    whole = all(isinstance(count, int) and not isinstance(count, bool) for count in pair)
    if len(pair) != 2 or not whole or not 1 <= pair[0] <= pair[1]:
        raise ArgumentValueError(
            f"concurrency is {concurrency!r}; accepted: a number of actors, at least 1, or (least, most)"
        )
    return pair


def _check_columns(dataset: ray.data.Dataset, column: str, output_column: str) -> None:
    columns = dataset.columns()
    if columns is None:  # without rows there is no schema, and nothing to embed
        return
    known = ", ".join(map(repr, columns))
    if column not in columns:
        raise ArgumentValueError(f"column is {column!r}; accepted: one of the dataset's, {known}")
    if output_column in columns:
        raise ArgumentValueError(
            f"output_column is {output_column!r}, which the dataset has already; accepted: a name beside {known}"
        )
