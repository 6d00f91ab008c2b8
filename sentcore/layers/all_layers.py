"""An encoder's layers in one call where nothing stands between them: BERT's, inference on a CPU, unadapted and unobserved."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from operator import is_

import torch
from torch import nn

from sentcore.layers.int8 import Int8Linear
from sentcore.ops.encoder_layers import TENSORS_OF_LAYER, encoder_layers
from sentcore.ops.inference_linear import engine, usable
from sentcore.ops.writes import WrittenStates
from sentcore.packed import PackedBatch


class AllLayers:
    """Runs `encoder_layers` on the packed weights of an encoder, gathered once and again when one of them changed.

    A layer that is of another class, holds an adapter, or has a forward hook is respected: the call gives None then, and
    the layers are to be run one by one.
    """

    def __init__(self) -> None:
        self._gathered: _Gathered | None = None

    def __call__(
        self, encoder: nn.Module, x: torch.Tensor, batch: PackedBatch, count: int | None = None
    ) -> torch.Tensor | None:
        """[T, H] -> [T, H] through the first `count` layers (None: all), or None where they have to be run one by one."""
        config, layers, order = encoder.config, encoder.layers, encoder.order()
        count = len(order) if count is None else count
        if layers.training or not count or not usable(x, encoder.backend) or engine(x.dtype) != "kernels":
            return None
        if not config.is_bert:
            return None
        if self._gathered is None or not self._gathered.is_current():
            self._gathered = _Gathered(layers, order)
        gathered = self._gathered
        if gathered.weights is None or gathered.dtype != x.dtype:
            return None
        return encoder_layers(
            x,
            batch.cu_seqlens,
            batch.max_seqlen,
            gathered.weights[: count * TENSORS_OF_LAYER],
            num_heads=gathered.num_heads,
            intermediate_size=gathered.intermediate_size,
            activation=gathered.activation,
            eps=gathered.eps,
        )

    # Copies and pickles are of the encoder around it; they gather anew.
    def __deepcopy__(self, memo: dict) -> AllLayers:
        return AllLayers()

    def __reduce__(self) -> tuple:
        return AllLayers, ()


class _Gathered:
    """What `encoder_layers` wants of some layers, and whether it is still so."""

    def __init__(self, layers: nn.ModuleList, order: list[int]) -> None:
        modules = list(layers.modules())
        # In the modules' own dicts, and by what loops in C: looking at all of them stands beside one short sentence.
        self._dicts = [held for m in modules for held in (m._modules, m._parameters, m._buffers)]
        self._sizes = list(map(len, self._dicts))
        self._held = self._values()
        self._hooks = [hooks for m in modules for hooks in (m._forward_hooks, m._forward_pre_hooks)]
        self._written = WrittenStates([held for held in self._held if isinstance(held, torch.Tensor)])
        self._hooked = any(self._hooks)
        self.weights = self._gather(layers, order) if all(map(_is_plain, layers)) and not self._hooked else None

    def is_current(self) -> bool:
        """Whether no module, tensor, value or hook has changed since."""
        return (
            list(map(len, self._dicts)) == self._sizes
            and all(map(is_, self._values(), self._held))
            and any(self._hooks) == self._hooked
            and self._written.are_current()
        )

    def _values(self) -> list[object]:
        return list(chain.from_iterable(map(dict.values, self._dicts)))

    def _gather(self, layers: nn.ModuleList, order: list[int]) -> list[torch.Tensor]:
        attention, feed_forward = layers[0].attention, layers[0].feed_forward
        self.num_heads = attention.num_heads
        self.activation, self.eps = feed_forward.hidden_act, feed_forward.layer_norm.eps
        self.dtype = feed_forward.layer_norm.weight.dtype
        gathered = [list(_weights_of(layer)) for layer in layers]
        self.intermediate_size = len(gathered[0][10])  # the bias of `up`
        return [tensor.detach() for place in order for tensor in gathered[place]]


def _is_plain(layer: nn.Module) -> bool:
    """Linear layers and LayerNorms of exactly the classes that are known, of sizes that the kernel takes."""
    attention, feed_forward = layer.attention, layer.feed_forward
    if isinstance(attention.output, Int8Linear):
        linears, kind = [attention.qkv, attention.output, feed_forward.up, feed_forward.down], Int8Linear
    else:
        linears = [
            attention.query,
            attention.key,
            attention.value,
            attention.output,
            feed_forward.up,
            feed_forward.down,
        ]
        kind = nn.Linear
        if any(type(m) is not kind or m.in_features % 2 for m in linears):
            return False
        if len({m.weight.dtype for m in linears}) > 1:
            return False
    norms = (attention.layer_norm, feed_forward.layer_norm)
    return all(type(m) is kind for m in linears) and all(
        type(m) is nn.LayerNorm and m.bias is not None and m.eps == norms[0].eps for m in norms
    )


def _weights_of(layer: nn.Module) -> Iterator[torch.Tensor]:
    """A layer's 16 tensors, in the order of `encoder_layers`."""
    attention, feed_forward = layer.attention, layer.feed_forward
    yield from attention.packed_weights()
    yield attention.layer_norm.weight
    yield attention.layer_norm.bias
    yield from feed_forward.packed_weights()
    yield feed_forward.layer_norm.weight
    yield feed_forward.layer_norm.bias
