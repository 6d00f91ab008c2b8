"""From (input_ids, attention_mask) to a packed batch and back."""

from __future__ import annotations

import torch

from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.packed import PackedBatch


def pack_padded(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    token_type_ids: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    position_offset: int = 0,
    uncounted_id: int | None = None,
) -> tuple[PackedBatch, torch.Tensor]:
    """Takes the unmasked tokens out of a padded batch.

    Args:
        input_ids: [B, S] int64 or int32.
        attention_mask: [B, S], non-zero (or True) where a token is real; None for all.
        token_type_ids, position_ids: [B, S], or None for zeros and for columns 0..S-1, as in transformers.
        position_offset: position_ids count from it.
        uncounted_id: without position_ids, positions count the other ids of a row, masked or not, and this one stands at -1,
            as in transformers' RoBERTa; None for columns.

    Returns:
        the packed batch, and the places of its T tokens in the flattened [B·S] grid, [T] int64.

    Raises:
        ArgumentTypeError, ArgumentValueError: by argument, value found, what is accepted, remedy.
    """
    if not isinstance(input_ids, torch.Tensor) or input_ids.dtype not in (torch.int64, torch.int32):
        found = getattr(input_ids, "dtype", type(input_ids).__name__)
        raise ArgumentTypeError(f"input_ids is of {found}; accepted: an int64 or int32 tensor [B, S], or a PackedBatch")
    if input_ids.dim() != 2:
        raise ArgumentValueError(
            f"input_ids has shape {list(input_ids.shape)}; accepted: [B, S]. Add a batch dimension with input_ids[None]"
        )
    for name, value in (
        ("attention_mask", attention_mask),
        ("token_type_ids", token_type_ids),
        ("position_ids", position_ids),
    ):
        if value is not None and value.shape != input_ids.shape:
            raise ArgumentValueError(
                f"{name} has shape {list(value.shape)}; accepted: input_ids' shape {list(input_ids.shape)}"
            )
    length = input_ids.shape[1]
    real = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask != 0
    places = real.flatten().nonzero().squeeze(1)
    lengths = real.sum(dim=1)
    if position_ids is not None:
        chosen_positions = position_ids.flatten()[places].long() - position_offset
    elif uncounted_id is not None:
        counted = input_ids != uncounted_id
        chosen_positions = (counted.cumsum(dim=1) * counted - 1).flatten()[places]
    else:
        chosen_positions = places % length if length else places
    ids = input_ids.flatten()[places].long()
    batch = PackedBatch(
        token_ids=ids,
        position_ids=chosen_positions,
        token_type_ids=torch.zeros_like(ids) if token_type_ids is None else token_type_ids.flatten()[places].long(),
        cu_seqlens=torch.cat((lengths.new_zeros(1), lengths.cumsum(0))).int(),
        max_seqlen=int(lengths.max()) if lengths.numel() else 0,
    )
    return batch, places


def unpack_padded(x: torch.Tensor, places: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """[T, H] -> [B, S, H], zeros where there was no token."""
    out = x.new_zeros((shape[0] * shape[1], x.shape[1]))
    return out.index_copy(0, places, x).view(*shape, x.shape[1])
