"""How many tokens a text is cut at."""

from __future__ import annotations

from sentcore.checkpoint.cross_encoder import CrossEncoderCheckpoint
from sentcore.checkpoint.load import Checkpoint
from sentcore.errors import ArgumentTypeError, ArgumentValueError


def pick_max_length(max_length: int | None, checkpoint: Checkpoint | CrossEncoderCheckpoint) -> int:
    """Tokens a text is cut at: the one asked for, or the folder's."""
    if max_length is None:
        return checkpoint.max_length
    if isinstance(max_length, bool) or not isinstance(max_length, int):
        raise ArgumentTypeError(
            f"max_length is {max_length!r} of type {type(max_length).__name__}; accepted: an integer or None"
        )
    longest = checkpoint.config.max_length
    if not 3 <= max_length <= longest:
        raise ArgumentValueError(
            f"max_length is {max_length}; accepted: 3 to {longest}, the model's position table (special tokens count)"
        )
    return max_length
