"""What tells attention where tokens stand: rotary angles, ALiBi slopes, learned biases on distances, windows."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from sentcore.config import EncoderConfig
from sentcore.packed import PackedBatch


class Prefix(NamedTuple):
    """Keys and values that stand before those of every sentence, P for each (Li and Liang 2021, https://arxiv.org/abs/2101.00190).

    Attributes:
        keys_values: [B·P, 2, N, D], sentence by sentence.
        order: [B·P + T] int64: where each key of the packed batch, prefix then tokens, stands in (keys_values, the tokens' own).
        cu_seqlens: [B + 1] int32, of the keys.
        max_seqlen: of the keys.
    """

    keys_values: torch.Tensor
    order: torch.Tensor
    cu_seqlens: torch.Tensor
    max_seqlen: int


class Positions(NamedTuple):
    """What one layer's attention is given beside its tokens.

    Attributes:
        rotary: (cos, sin), each [T, D/2] float32, or None.
        bias: [N, S, S], added to the scores of every sentence, or None.
        alibi_slopes: [N] float32, or None.
        window: (left, right) keys that a query sees, or None for all.
        prefix: keys and values before the sentences' own, or None; not with a bias, ALiBi or a window.
    """

    rotary: tuple[torch.Tensor, torch.Tensor] | None = None
    bias: torch.Tensor | None = None
    alibi_slopes: torch.Tensor | None = None
    window: tuple[int, int] | None = None
    prefix: Prefix | None = None


NOWHERE = Positions()  # absolute positions are in the embeddings already


class PositionSchemes(nn.Module):
    """The positions of a batch, for full and for sliding layers, computed once for all of them."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self._slopes: torch.Tensor | None = None
        self.relative_attention_bias = None
        if config.relative_attention_num_buckets:
            self.relative_attention_bias = nn.Embedding(
                config.relative_attention_num_buckets, config.num_attention_heads
            )

    def forward(self, batch: PackedBatch) -> dict[bool, Positions]:
        """{False: of full layers, True: of sliding ones}."""
        config = self.config
        kind = config.position_embedding_type
        full = Positions(
            rotary=self._angles(batch, config.rope_theta) if kind == "rotary" else None,
            bias=None if self.relative_attention_bias is None else self._bias(batch.max_seqlen),
            alibi_slopes=self._alibi_slopes(batch.token_ids.device) if kind == "alibi" else None,
        )
        if config.layer_types is None or "sliding" not in config.layer_types:
            return {False: full}
        local = full._replace(window=(config.sliding_window, config.sliding_window))
        if kind == "rotary" and config.local_rope_theta not in (None, config.rope_theta):
            local = local._replace(rotary=self._angles(batch, config.local_rope_theta))
        return {False: full, True: local}

    def _alibi_slopes(self, device: torch.device) -> torch.Tensor:
        """[N] float32, brought to a device once: a copy from the host in every pass would wait for the device."""
        if torch.compiler.is_compiling():
            return alibi_slopes(self.config.num_attention_heads, device)
        if self._slopes is None or self._slopes.device != device:
            with torch.inference_mode(False):  # autograd may save it
                self._slopes = alibi_slopes(self.config.num_attention_heads, device)
        return self._slopes

    def _angles(self, batch: PackedBatch, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin of position * frequency, each [T, D/2] float32 (Su et al. 2021, section 3.2.2)."""
        frequencies = rotary_frequencies(self.config, theta, batch.token_ids.device)
        angles = batch.position_ids[:, None].float() * frequencies
        return angles.cos(), angles.sin()

    def _bias(self, length: int) -> torch.Tensor:
        """[N, length, length]: the learned bias of each pair's bucket."""
        places = torch.arange(length, device=self.relative_attention_bias.weight.device)
        buckets = relative_buckets(
            places[None, :] - places[:, None],
            self.config.relative_attention_num_buckets,
            self.config.relative_attention_max_distance,
        )
        return self.relative_attention_bias(buckets).permute(2, 0, 1).contiguous()


def rotary_frequencies(config: EncoderConfig, theta: float, device: torch.device) -> torch.Tensor:
    """[D/2] float32: theta^(-2i/D); stretched by rope_ntk_factor f, (theta f)^(-2i/D) f^(-2/D), as GTE's model code does."""
    size, factor = config.head_size, config.rope_ntk_factor
    exponents = torch.arange(0, size, 2, dtype=torch.float32, device=device) / size
    return 1.0 / ((theta * factor) ** exponents) / factor ** (2 / size)


def alibi_slopes(heads: int, device: torch.device | None = None) -> torch.Tensor:
    """[N] float32: 2^(-8(i+1)/n) for n heads, n a power of 2; other counts take every second slope of 2n for the rest.

    Source: Press et al. 2022, section 3 (https://arxiv.org/abs/2108.12409), and its authors' rule for other counts.
    """

    def of_power(count: int) -> list[float]:
        return [2.0 ** (-8.0 * (i + 1) / count) for i in range(count)]

    whole = 2 ** math.floor(math.log2(heads))
    slopes = of_power(whole) + of_power(2 * whole)[0::2][: heads - whole]
    return torch.tensor(slopes, dtype=torch.float32, device=device)


def relative_buckets(distances: torch.Tensor, num_buckets: int, max_distance: int) -> torch.Tensor:
    """Buckets of key position - query position: half for either side; near ones exact, far ones by the logarithm.

    Args:
        distances: int64, any shape.

    Source: Raffel et al. 2020, section 2.1 (https://arxiv.org/abs/1910.10683), as MPNet uses it.
    """
    side = num_buckets // 2
    behind = -distances
    buckets = (behind < 0).long() * side
    behind = behind.abs()
    exact = side // 2
    far = torch.log(behind.float() / exact) / math.log(max_distance / exact) * (side - exact)
    far = (exact + far.long()).clamp(max=side - 1)
    return buckets + torch.where(behind < exact, behind, far)
