"""Prefix tuning: the keys and values that PEFT hands to an encoder as a cache, as a packed batch takes them."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch

from sentcore.config import EncoderConfig
from sentcore.layers.positions import Prefix
from sentcore.packed import PackedBatch

ARGUMENTS = ("past_key_values", "cache")  # transformers renames the first to the second


class Past(NamedTuple):
    """What stands before every text: of every layer keys and values [B, N, P, D], and P."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    length: int

    def moved(self, batch: PackedBatch) -> PackedBatch:
        """The batch with its tokens P positions further on; what stands at -1 (RoBERTa's padding id) stays there."""
        moved = torch.where(batch.position_ids >= 0, batch.position_ids + self.length, batch.position_ids)
        return dataclasses.replace(batch, position_ids=moved)

    def prefixes(self, batch: PackedBatch) -> list[Prefix]:
        """One for each layer."""
        length, device = self.length, batch.cu_seqlens.device
        sentences, tokens = batch.cu_seqlens.shape[0] - 1, batch.num_tokens
        lengths = batch.cu_seqlens.diff().long()
        firsts = batch.cu_seqlens[:-1].long() + length * torch.arange(sentences, device=device)
        # Where each prefix key and each token goes, and from there what comes to each place.
        to = torch.cat(
            (
                (firsts[:, None] + torch.arange(length, device=device)).flatten(),
                torch.arange(tokens, device=device)
                + length * (1 + torch.arange(sentences, device=device)).repeat_interleave(lengths, output_size=tokens),
            )
        )
        order = torch.empty_like(to).scatter_(0, to, torch.arange(len(to), device=device))
        steps = length * torch.arange(sentences + 1, dtype=torch.int32, device=device)
        made = []
        for keys, values in self.layers:
            both = torch.stack((keys.transpose(1, 2), values.transpose(1, 2)), dim=2)
            made.append(Prefix(both.flatten(0, 1), order, batch.cu_seqlens + steps, batch.max_seqlen + length))
        return made


def past_of(given: dict[str, Any], config: EncoderConfig, layers: int, texts: int) -> Past | None:
    """What the call's cache holds, or None where there is none, or it is not a prefix of one length for all layers and texts."""
    cache = next((given[name] for name in ARGUMENTS if name in given), None)
    cache = getattr(cache, "self_attention_cache", cache)
    held = list(getattr(cache, "layers", ()))[:layers]
    absolute = config.position_embedding_type == "absolute" and not config.relative_attention_num_buckets
    if not absolute or len(held) < layers:
        return None
    pairs = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in held]
    tensors = [tensor for pair in pairs for tensor in pair]
    if not all(isinstance(tensor, torch.Tensor) and tensor.dim() == 4 for tensor in tensors):
        return None
    wanted = (texts, config.num_attention_heads, tensors[0].shape[2], config.head_size)
    if not wanted[2] or any(tuple(tensor.shape) != wanted for tensor in tensors):
        return None
    return Past(pairs, wanted[2])
