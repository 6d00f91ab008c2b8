"""Token features to sentence features, over the segments of a packed batch, summed in float32."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from sentcore.errors import ArgumentValueError
from sentcore.ops import segment_pooling
from sentcore.outputs.layer_pooling import pool_layers
from sentcore.outputs.specs import LAYER_POOLING_MODES, POOLING_MODES, PoolingSpec
from sentcore.packed import PackedBatch


class Pooling(nn.Module):
    """sentence-transformers' six pooling modes (Reimers & Gurevych 2019), two over several layers, and concatenations of them."""

    def __init__(self, spec: PoolingSpec) -> None:
        super().__init__()
        accepted = (*POOLING_MODES, *LAYER_POOLING_MODES)
        unknown = [mode for mode in spec.modes if mode not in accepted]
        if unknown or not spec.modes:
            raise ArgumentValueError(
                f"pooling modes are {list(spec.modes)}; accepted: one or more of {', '.join(accepted)}"
            )
        self.spec = spec

    def forward(
        self,
        x: torch.Tensor,
        batch: PackedBatch,
        prompt_length: int = 0,
        states: Mapping[int, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """[T, H] -> [B, H · number of modes] float32 (float64 for float64).

        Args:
            x: [T, H] token features.
            batch: the packed batch they belong to.
            prompt_length: tokens at the start of every sentence that are the prompt's, left out when the spec says so.
            states: hidden states [T, H] by layer, the last one among them, for modes over several layers.
        """
        skip = 0 if self.spec.include_prompt else prompt_length
        pooled = [
            pool_layers(states, mode, max(states), batch.cu_seqlens, skip)
            if mode in LAYER_POOLING_MODES
            else segment_pooling(x, batch.cu_seqlens, mode=mode, skip=skip)
            for mode in self.spec.modes
        ]
        return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=1)

    def reads_one_row(self, prompt_length: int = 0) -> bool:
        """Whether it takes one token's feature of every sentence as it is."""
        return self.spec.modes in (("cls",), ("lasttoken",)) and (self.spec.include_prompt or not prompt_length)

    def rows(self, batch: PackedBatch) -> torch.Tensor:
        """[B] int64, that token of every sentence."""
        bounds = batch.cu_seqlens.long()
        return bounds[:-1] if self.spec.modes == ("cls",) else bounds[1:] - 1

    @staticmethod
    def widened(x: torch.Tensor) -> torch.Tensor:
        """In the dtype in which features leave the pooling."""
        return x if x.dtype == torch.float64 else x.float()
