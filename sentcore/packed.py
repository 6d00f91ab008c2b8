"""The two shapes text takes on its way into the encoder: ragged token ids on the host, one packed batch on the device.

Nothing is padded in either. Five tokens of two sentences, ``[CLS] hi [SEP]`` and ``[CLS] [SEP]``, are::

    token_ids    = [101, 7632, 102, 101, 102]
    position_ids = [0, 1, 2, 0, 1]
    cu_seqlens   = [0, 3, 5]          # sentence b is token_ids[cu_seqlens[b] : cu_seqlens[b + 1]]
    max_seqlen   = 3
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch

from sentcore.errors import ArgumentTypeError


@dataclass(frozen=True)
class TokenizedTexts:
    """Token ids of B texts, one after the other, on the host.

    Attributes:
        token_ids: [T] int32.
        offsets: [B+1] int64, text b is ``token_ids[offsets[b]:offsets[b + 1]]``.
        token_type_ids: [T] int32, or None when all are zero.
        truncated: [B] bool, True where the text was cut at the model's maximum length.
    """

    token_ids: np.ndarray
    offsets: np.ndarray
    token_type_ids: np.ndarray | None
    truncated: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """[B] int64, tokens in each text."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class PackedBatch:
    """B sentences packed into T tokens without padding.

    Attributes:
        token_ids: [T] int64.
        position_ids: [T] int64.
        token_type_ids: [T] int64.
        cu_seqlens: [B+1] int32, cumulative sentence lengths, first 0, last T.
        max_seqlen: length of the longest sentence, a host integer so that no kernel launch waits for the device.
    """

    token_ids: torch.Tensor
    position_ids: torch.Tensor
    token_type_ids: torch.Tensor
    cu_seqlens: torch.Tensor
    max_seqlen: int

    @classmethod
    def from_sequences(
        cls,
        sequences: Iterable[Sequence[int] | torch.Tensor],
        *,
        device: torch.device | str | None = None,
        uncounted_id: int | None = None,
    ) -> PackedBatch:
        """Packs B sequences of token ids as they are: positions count from 0 in each, token types are zero.

        Args:
            sequences: lists, or [length] integer tensors; an empty one is fine.
            device: where the batch goes; None for where the tensors are.
            uncounted_id: EncoderConfig.uncounted_id: an id at position -1 that the tokens behind it do not count.

        Raises:
            ArgumentTypeError: a sequence that is no flat row of integers, by its position.
        """
        rows = []
        for index, sequence in enumerate(sequences):
            row = torch.as_tensor(sequence)
            integers = row.dtype in (torch.int64, torch.int32, torch.int16, torch.uint8)
            if row.dim() != 1 or (row.numel() and not integers):
                raise ArgumentTypeError(
                    f"sequences[{index}] is of shape {list(row.shape)} and {row.dtype}; accepted: a flat list or an "
                    "integer tensor of token ids. Tokenize the text first"
                )
            rows.append(row.to(device=device, dtype=torch.int64))
        lengths = [len(row) for row in rows]
        where = rows[0].device if rows else device
        token_ids = torch.cat(rows) if rows else torch.empty(0, dtype=torch.int64, device=device)
        return cls(
            token_ids=token_ids,
            position_ids=torch.cat([*(_positions(row, uncounted_id) for row in rows), token_ids[:0]]),
            token_type_ids=torch.zeros_like(token_ids),
            cu_seqlens=torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=where),
            max_seqlen=max(lengths, default=0),
        )

    @classmethod
    def from_flat(cls, flat: torch.Tensor, tokens: int, sentences: int, max_seqlen: int) -> PackedBatch:
        """A batch of T tokens and B sentences that lies in one piece, `flat` [flat_words(T, B) or more] int64."""
        rows, cu_seqlens = flat_parts(flat, tokens, sentences)
        return cls(rows[0], rows[1], rows[2], cu_seqlens, max_seqlen)

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.token_ids.shape[0]

    @property
    def num_sentences(self) -> int:
        """B."""
        return self.cu_seqlens.shape[0] - 1

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PackedBatch:
        """The same batch on another device."""
        return PackedBatch(
            token_ids=self.token_ids.to(device, non_blocking=non_blocking),
            position_ids=self.position_ids.to(device, non_blocking=non_blocking),
            token_type_ids=self.token_type_ids.to(device, non_blocking=non_blocking),
            cu_seqlens=self.cu_seqlens.to(device, non_blocking=non_blocking),
            max_seqlen=self.max_seqlen,
        )


def flat_words(tokens: int, sentences: int) -> int:
    """int64 words of a batch in one piece: three of a token, and the B + 1 bounds of sentences, two a word."""
    return 3 * tokens + (sentences + 2) // 2


def flat_parts(flat: torch.Tensor, tokens: int, sentences: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(token_ids, position_ids and token_type_ids [3, T] int64, cu_seqlens [B+1] int32) as they lie in `flat`."""
    ids = 3 * tokens
    bounds = flat[ids : flat_words(tokens, sentences)].view(torch.int32)
    return flat[:ids].view(3, tokens), bounds[: sentences + 1]


def _positions(row: torch.Tensor, uncounted_id: int | None) -> torch.Tensor:
    """[length] positions of one sentence."""
    if uncounted_id is None:
        return torch.arange(len(row), device=row.device)
    counted = row != uncounted_id
    return counted.cumsum(0) * counted - 1
