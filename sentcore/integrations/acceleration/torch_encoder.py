"""torch.nn.TransformerEncoder and TransformerEncoderLayer on packed batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sentcore.config import EncoderConfig
from sentcore.errors import ArgumentValueError
from sentcore.integrations.acceleration.borrowed import is_hooked, never_pack
from sentcore.integrations.acceleration.classes import Accelerated, original_class, warn_of_own_code
from sentcore.layers.encoder_layer import EncoderLayer
from sentcore.layers.padding import pack_padded, unpack_padded
from sentcore.layers.positions import NOWHERE, Positions
from sentcore.packed import PackedBatch

CAUSAL = Positions(window=(-1, 0))  # all keys before a query, none behind it


class BorrowedLayer:
    """A sentcore EncoderLayer that stands on the parameters and modules of a torch.nn.TransformerEncoderLayer.

    Raises:
        ArgumentValueError: something in the layer computes what ours does not; by name and value.
    """

    def __init__(self, layer: nn.TransformerEncoderLayer, backend: str) -> None:
        self._layer, self._backend = layer, backend
        self._ours: EncoderLayer | None = None
        reason = self.refusal()
        if reason is not None:
            raise ArgumentValueError(f"TransformerEncoderLayer cannot be run packed: {reason}. It is left as it was")

    def __call__(self, x: torch.Tensor, batch: PackedBatch, positions: Positions) -> torch.Tensor:
        """[T, H] -> [T, H]."""
        return self._linked()(x, batch, positions)

    def layers(self) -> list[nn.Module]:
        """Layers in it that are to take packed tokens: none, it is one itself."""
        return []

    @property
    def batch_first(self) -> bool:
        return self._layer.self_attn.batch_first

    def refusal(self) -> str | None:
        """What forbids packing in the layer as it is now, or None."""
        layer = self._layer
        if original_class(type(layer)) is not nn.TransformerEncoderLayer:
            return f"it is of class {type(layer).__name__}; accepted: torch.nn.TransformerEncoderLayer itself"
        replaced = {"forward", "_sa_block", "_ff_block"} & layer.__dict__.keys()
        if replaced:
            return f"its {min(replaced)} was replaced"
        if _activation(layer) is None:
            return f"activation is {layer.activation!r}; accepted: relu, gelu"
        attention = layer.self_attn
        if type(attention) is not nn.MultiheadAttention or is_hooked(attention) or "forward" in attention.__dict__:
            return (
                f"self_attn is of class {type(attention).__name__} or has a hook; "
                "accepted: torch.nn.MultiheadAttention without one"
            )
        if not attention._qkv_same_embed_dim or attention.bias_k is not None or attention.add_zero_attn:
            return "self_attn has kdim, vdim, add_bias_kv or add_zero_attn; accepted: none of them"
        for name in ("dropout", "dropout1", "dropout2"):
            part = getattr(layer, name)
            if type(part) is not nn.Dropout or is_hooked(part):
                return f"{name} is of class {type(part).__name__} or has a hook; accepted: torch.nn.Dropout without one"
        if _probability(layer.dropout1) != _probability(layer.dropout2):
            return f"dropout1 drops with {layer.dropout1.p}, dropout2 with {layer.dropout2.p}; accepted: the same"
        return None

    def _linked(self) -> EncoderLayer:
        """Ours, on the layer's tensors as they are now: under fully_shard they are whole only while the layer runs."""
        theirs = self._layer
        if self._ours is None:
            self._ours = self._built()
        ours, inner = self._ours, theirs.self_attn
        attention, feed_forward = ours.attention, ours.feed_forward
        _stand_on(attention.qkv, inner.in_proj_weight, inner.in_proj_bias)
        # torch reads the weight of out_proj past anything that stands in its place, and so does this.
        _stand_on(attention.output, inner.out_proj.weight, inner.out_proj.bias)
        for parent, name, leaf in (
            (attention, "layer_norm", theirs.norm1),
            (feed_forward, "layer_norm", theirs.norm2),
            (feed_forward, "up", theirs.linear1),
            (feed_forward, "down", theirs.linear2),
        ):
            if parent._modules.get(name) is not leaf:
                setattr(parent, name, leaf)
        ours.norm_first = theirs.norm_first
        feed_forward.hidden_act = feed_forward.activation = _activation(theirs)
        # Every dropout has a mode of its own: what it drops now stands in the probabilities.
        ours.training = attention.training = feed_forward.training = True
        attention.attention_dropout_p = inner.dropout if inner.training else 0.0
        feed_forward.intermediate_dropout_p = _probability(theirs.dropout)
        ours.dropout_p = _probability(theirs.dropout1)
        return ours

    def _built(self) -> EncoderLayer:
        """Ours, with nothing in it yet but its shape."""
        inner = self._layer.self_attn
        config = EncoderConfig(hidden_size=inner.embed_dim, num_attention_heads=inner.num_heads, intermediate_size=1)
        with torch.device("meta"):
            ours = EncoderLayer(config, self._backend)
            ours.attention.qkv = nn.Linear(inner.embed_dim, 3 * inner.embed_dim)
        ours.attention.query = ours.attention.key = ours.attention.value = None
        never_pack(ours)
        return ours

    # Copies and pickles are of the layer around it: they link to the copy's own tensors.
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ours": None}


class BorrowedStack:
    """The BorrowedLayers of a torch.nn.TransformerEncoder.

    Raises:
        ArgumentValueError: one of its layers, or its norm, computes what ours do not; by place, name and value.
    """

    def __init__(self, encoder: nn.TransformerEncoder, backend: str) -> None:
        self._encoder = encoder
        self.borrowed = [BorrowedLayer(layer, backend) for layer in encoder.layers]
        reason = self.refusal()
        if reason is not None:
            raise ArgumentValueError(f"TransformerEncoder cannot be run packed: {reason}. It is left as it was")

    def layers(self) -> list[nn.Module]:
        """The encoder's own layers."""
        return [borrowed._layer for borrowed in self.borrowed]

    @property
    def batch_first(self) -> bool:
        return self.borrowed[0].batch_first

    def refusal(self) -> str | None:
        """What forbids packing in the encoder as it is now, or None."""
        layers = self._encoder.layers
        if not self.borrowed or [*layers] != self.layers():
            return f"layers holds {len(layers)} modules, not those that were accelerated. Restore, and accelerate again"
        for place, borrowed in enumerate(self.borrowed):
            reason = borrowed.refusal()
            if reason is not None:
                return f"layers.{place}: {reason}"
            if borrowed.batch_first != self.batch_first:
                return f"layers.{place} has batch_first={borrowed.batch_first}; accepted: that of the first layer"
        norm = self._encoder.norm
        if norm is not None and not isinstance(norm, (nn.LayerNorm, nn.RMSNorm)):
            return f"norm is of class {type(norm).__name__}; accepted: None, LayerNorm or RMSNorm"
        return None


class AcceleratedTorchEncoder(Accelerated):
    """A torch.nn.TransformerEncoder that computes no padding."""

    @torch.compiler.disable
    def forward(
        self,
        src: torch.Tensor,
        mask: torch.Tensor | None = None,
        src_key_padding_mask: torch.Tensor | None = None,
        is_causal: bool | None = None,
    ) -> torch.Tensor:
        """As TransformerEncoder's own: src [S, B, H], [B, S, H] with batch_first, or [S, H]; the same shape, zeros at padding."""
        borrowed = self._sentcore
        reason = _beyond(borrowed, src, mask, src_key_padding_mask, is_causal) or borrowed.refusal()
        if reason is not None:
            warn_of_own_code(self, reason)
            return super().forward(src, mask, src_key_padding_mask, is_causal)
        x, batch, back = _packed(src, src_key_padding_mask, borrowed.batch_first)
        for layer, ours in zip(self.layers, borrowed.borrowed, strict=True):
            x = layer(x, packed=(ours, batch, NOWHERE if mask is None else CAUSAL))
        return back(x if self.norm is None else self.norm(x))


class AcceleratedTorchLayer(Accelerated):
    """A torch.nn.TransformerEncoderLayer outside of a TransformerEncoder: it packs for itself."""

    @torch.compiler.disable
    def forward(
        self,
        src: torch.Tensor,
        src_mask: torch.Tensor | None = None,
        src_key_padding_mask: torch.Tensor | None = None,
        is_causal: bool = False,
    ) -> torch.Tensor:
        """As TransformerEncoderLayer's own; zeros at padding."""
        borrowed = self._sentcore
        reason = _beyond(borrowed, src, src_mask, src_key_padding_mask, is_causal) or borrowed.refusal()
        if reason is not None:
            warn_of_own_code(self, reason)
            return super().forward(src, src_mask, src_key_padding_mask, is_causal)
        x, batch, back = _packed(src, src_key_padding_mask, borrowed.batch_first)
        return back(borrowed(x, batch, NOWHERE if src_mask is None else CAUSAL))


def _beyond(
    borrowed: BorrowedLayer | BorrowedStack,
    src: torch.Tensor,  # [S, B, H], [B, S, H] or [S, H]
    mask: torch.Tensor | None,  # [S, S]
    padding: torch.Tensor | None,  # [B, S] or [S]
    is_causal: bool | None,
) -> str | None:
    """What a call asks for that packed batches do not give, or None."""
    if src.is_nested or src.dim() not in (2, 3):
        return "src is nested, or not of 2 or 3 dimensions"
    length = src.shape[1 if src.dim() == 3 and borrowed.batch_first else 0]
    if mask is None and is_causal:
        return "is_causal is given without a mask"
    if mask is not None and not _is_causal_mask(mask, length):
        return "mask is not the causal one; packed are causal masks and src_key_padding_mask"
    if padding is None:
        return None
    batch = () if src.dim() == 2 else (src.shape[0 if borrowed.batch_first else 1],)
    if padding.shape != (*batch, length):
        return f"src_key_padding_mask has shape {list(padding.shape)}; accepted: {[*batch, length]}"
    if padding.dtype != torch.bool and not (padding.is_floating_point() and _adds_nothing(padding)):
        return "src_key_padding_mask adds to scores; packed are masks of True, or -inf, at padding"
    return None


def _packed(
    src: torch.Tensor, padding: torch.Tensor | None, batch_first: bool
) -> tuple[torch.Tensor, PackedBatch, Callable[[torch.Tensor], torch.Tensor]]:
    """[T, H], a batch that only its lengths matter of, and the way back from [T, H] to src's shape."""
    turned = src.dim() == 3 and not batch_first
    rows = src[None] if src.dim() == 2 else src.transpose(0, 1) if turned else src
    blocked = None if padding is None else _blocked(padding).view(rows.shape[:2])
    nothing = torch.zeros(rows.shape[:2], dtype=torch.int64, device=src.device)
    batch, places = pack_padded(nothing, None if blocked is None else ~blocked, None, None)

    def back(x: torch.Tensor) -> torch.Tensor:
        out = unpack_padded(x, places, rows.shape[:2])
        return out[0] if src.dim() == 2 else out.transpose(0, 1) if turned else out

    return rows.flatten(0, 1)[places], batch, back


def _is_causal_mask(mask: torch.Tensor, length: int) -> bool:
    """Whether it hides later keys, and does nothing else; looked at, as a wrong is_causal would be believed otherwise."""
    if mask.shape != (length, length) or not (mask.dtype == torch.bool or mask.is_floating_point()):
        return False
    later = torch.ones(length, length, dtype=torch.bool, device=mask.device).triu(1)
    return torch.equal(_blocked(mask), later) and (mask.dtype == torch.bool or _adds_nothing(mask))


def _blocked(mask: torch.Tensor) -> torch.Tensor:
    return mask if mask.dtype == torch.bool else mask == -torch.inf


def _adds_nothing(mask: torch.Tensor) -> bool:
    return bool(((mask == 0) | (mask == -torch.inf)).all())


def _activation(layer: nn.TransformerEncoderLayer) -> str | None:
    """The name of what stands between its linear layers, or None for one that is not known."""
    found = layer.activation
    if isinstance(found, nn.Module) and is_hooked(found):
        return None
    if found is F.relu or type(found) is nn.ReLU:
        return "relu"
    if type(found) is nn.GELU:
        return "gelu" if found.approximate == "none" else "gelu_tanh"
    return "gelu" if found is F.gelu else None


def _probability(dropout: nn.Dropout) -> float:
    return dropout.p if dropout.training else 0.0


def _stand_on(linear: nn.Linear, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    """Past nn.Module's checks, as a parametrized weight is a tensor, not a Parameter."""
    linear._parameters.update(weight=weight, bias=bias)
