"""The two shapes text takes on its way into the encoder: ragged token ids on the host, one packed batch on the device.

Nothing is padded in either. Five tokens of two sentences, ``[CLS] hi [SEP]`` and ``[CLS] [SEP]``, are::

    token_ids    = [101, 7632, 102, 101, 102]
    position_ids = [0, 1, 2, 0, 1]
    cu_seqlens   = [0, 3, 5]          # sentence b is token_ids[cu_seqlens[b] : cu_seqlens[b + 1]]
    max_seqlen   = 3
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


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
