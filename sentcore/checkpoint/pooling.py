"""Another pooling than the one a folder names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sentcore.checkpoint.load import Checkpoint
from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.outputs import DenseSpec, hidden_states_needed
from sentcore.outputs.specs import LAYER_POOLING_MODES, POOLING_MODES


def with_pooling(checkpoint: Checkpoint, pooling: str | Sequence[str] | None) -> Checkpoint:
    """The checkpoint with these pooling modes, what follows unchanged; itself for None.

    Args:
        pooling: a mode, or modes whose features are concatenated in this order.

    Raises:
        ArgumentTypeError, ArgumentValueError: no mode, too few layers, or another width than the folder's Dense takes.
    """
    if pooling is None:
        return checkpoint
    if not isinstance(pooling, (str, list, tuple)):
        raise ArgumentTypeError(
            f"pooling is {pooling!r} of type {type(pooling).__name__}; accepted: a mode, a list of modes, or None"
        )
    modes = (pooling,) if isinstance(pooling, str) else tuple(pooling)
    accepted = (*POOLING_MODES, *LAYER_POOLING_MODES)
    wrong = [mode for mode in modes if mode not in accepted]
    if wrong or not modes:
        raise ArgumentValueError(f"pooling is {pooling!r}; accepted: one or more of {', '.join(accepted)}")
    config = checkpoint.config
    hidden_states_needed(modes, config.num_hidden_layers)  # refuses a model of too few layers
    width = config.hidden_size * len(modes)
    spec, *following = checkpoint.modules
    dense = [stage for stage in following if isinstance(stage, DenseSpec)]
    if dense and dense[0].weight.shape[1] != width:
        raise ArgumentValueError(
            f"pooling is {pooling!r}, which is {width} wide; accepted: what the folder's Dense takes, "
            f"{dense[0].weight.shape[1]} columns, so {dense[0].weight.shape[1] // config.hidden_size} modes"
        )
    return replace(
        checkpoint,
        modules=(replace(spec, modes=modes), *following),
        sentence_embedding_dimension=checkpoint.sentence_embedding_dimension if dense else width,
    )
