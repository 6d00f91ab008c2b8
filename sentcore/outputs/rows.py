"""Rows of sentence features as they leave the device, pooled in the same op where nothing but Normalize follows the pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sentcore.ops import segment_pooling_quantized
from sentcore.ops.plain import is_plain
from sentcore.outputs.normalize import Normalize
from sentcore.outputs.pooling import Pooling
from sentcore.outputs.specs import POOLING_MODES


@dataclass(frozen=True)
class RowForm:
    """What is made of features behind the model: cut to their first columns, scaled, quantized.

    Attributes:
        truncate_dim: columns kept, or None for all.
        normalize: scale what is kept to length 1.
        precision: "float32", "binary", "ubinary", or with ranges "int8" and "uint8".
        ranges: [2, W] float32 on the model's device, least and largest value of each column, or None.
    """

    truncate_dim: int | None = None
    normalize: bool = False
    precision: str = "float32"
    ranges: torch.Tensor | None = None

    def of_tokens(
        self, x: torch.Tensor, cu_seqlens: torch.Tensor, mode: str, skip: int, normalize_before: bool
    ) -> torch.Tensor:
        """[T, H] token features -> rows, pooled by `mode`.

        Returns:
            [B, W] float32, or the bytes of the precision and behind them a column that is 0 for a row that held NaN or infinity.
        """
        width = x.shape[1] if self.truncate_dim is None else min(self.truncate_dim, x.shape[1])
        rows, finite = segment_pooling_quantized(
            *(x, cu_seqlens),
            **{"mode": mode, "skip": skip, "normalize_before": normalize_before, "width": width},
            **{"normalize": self.normalize, "precision": self.precision, "ranges": self.ranges},
        )
        if rows.is_floating_point():
            return rows
        return torch.cat((rows, finite[:, None].to(rows.dtype)), dim=1)  # one tensor: one copy to the host

    def of_features(self, features: torch.Tensor) -> torch.Tensor:
        """[B, E] sentence features -> the same rows; of those that are pooled and normalized the same bits as `of_tokens`."""
        each = torch.arange(len(features) + 1, dtype=torch.int32, device=features.device)
        return self.of_tokens(features, each, "cls", 0, False)


def opened(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantized rows as a RowForm gave them -> (without the column behind them, [B] bool, which of them were finite)."""
    return rows[:, :-1], rows[:, -1] != 0


def is_pooling_alone(stages: Sequence[nn.Module]) -> bool:
    """Whether the stages behind an encoder are one pooling mode over the last layer, and then at most Normalize."""
    return (
        1 <= len(stages) <= 2
        and is_plain(stages[0], kinds=(Pooling,))
        and is_plain(*stages[1:], kinds=(Normalize,))
        and len(stages[0].spec.modes) == 1
        and stages[0].spec.modes[0] in POOLING_MODES
    )
