"""A family's tensor names beside ours, as data, and the way between the two."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from sentcore.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]
_LEGACY_SUFFIX = {"gamma": "weight", "beta": "bias"}


@dataclass(frozen=True)
class Names:
    """How a family names tensors.

    A checkpoint's stem (a name without .weight or .bias) stands for one of ours, or for a tuple of ours that lie in it one
    after the other along its rows. ``up#0`` and ``up#1`` are the two halves of ``up``.

    Attributes:
        prefixes: what may stand before every name; the first that is there is cut off.
        outer: checkpoint stem -> ours, outside the layers.
        layer: a layer's prefix with {} for its number.
        inner: checkpoint stem -> ours, within a layer; several stems may stand for the same (older names), the first is written.
        ignored: a pattern of names that no sentence feature passes through.
    """

    prefixes: tuple[str, ...]
    outer: Mapping[str, str]
    layer: str
    inner: Mapping[str, str | tuple[str, ...]]
    ignored: str = r"(pooler|classifier|cls|lm_head|head|decoder|qa_outputs|dropout|score)\."
    other_layers: tuple[str, ...] = field(default=())  # other forms of `layer` that are read

    @cached_property
    def _ignored(self) -> re.Pattern:
        return re.compile(rf"({self.ignored})|(.*\.)?(position_ids|token_type_ids|inv_freq)$")

    @cached_property
    def _layers(self) -> list[re.Pattern]:
        return [
            re.compile(re.escape(form).replace(r"\{\}", r"(0|[1-9][0-9]{0,5})") + r"(.+)")
            for form in (self.layer, *self.other_layers)
        ]

    def pieces(self, hf_name: str) -> list[str] | None:
        """Our names of a checkpoint's tensor, in the order in which they lie in it; None for one that is not needed.

        Raises:
            KeyError: nobody knows it.
        """
        name = self.without_prefix(hf_name)
        stem, _, suffix = name.rpartition(".")
        suffix = _LEGACY_SUFFIX.get(suffix, suffix)
        if stem in self.outer:
            return [f"{self.outer[stem]}.{suffix}"]
        for pattern in self._layers:
            found = pattern.fullmatch(stem)
            if found and found[2] in self.inner:
                ours = self.inner[found[2]]
                parts = (ours,) if isinstance(ours, str) else ours
                return [f"layers.{int(found[1])}.{part}.{suffix}" for part in parts]
        if self._ignored.match(name):
            return None
        raise KeyError(hf_name)

    def without_prefix(self, hf_name: str) -> str:
        """The name less the first of `prefixes` that it begins with."""
        return next((hf_name[len(p) :] for p in self.prefixes if hf_name.startswith(p)), hf_name)

    def to_ours(
        self, tensors: Mapping[str, torch.Tensor], source: Path | str = "the checkpoint"
    ) -> tuple[dict[str, torch.Tensor], list[str]]:
        """(our tensors, the names that nobody knows). Where rows do not divide, the shape shows it later.

        Raises:
            CheckpointError: two tensors stand for one of ours; `source` is the file that it names.
        """
        state: dict[str, torch.Tensor] = {}
        halves: dict[str, dict[int, torch.Tensor]] = {}
        unknown, origin = [], {}
        for hf_name, tensor in tensors.items():
            try:
                pieces = self.pieces(hf_name)
            except KeyError:
                unknown.append(hf_name)
                continue
            if pieces is None:
                continue
            whole = tensor.dim() > 0 and tensor.shape[0] % len(pieces) == 0
            chunks = tensor.chunk(len(pieces)) if whole and len(pieces) > 1 else [tensor] * len(pieces)
            for piece, chunk in zip(pieces, chunks, strict=True):
                if (other := origin.setdefault(piece, hf_name)) != hf_name:
                    raise CheckpointError(
                        f"{source} holds both {other} and {hf_name}, which are names of one tensor; accepted: one of them. Remove "
                        "the one that is not meant"
                    )
                name, half = _whole_of(piece)
                if half is None:
                    state[name] = chunk
                else:
                    halves.setdefault(name, {})[half] = chunk
        for name, both in halves.items():
            if set(both) == {0, 1} and both[0].dim() and both[0].shape[1:] == both[1].shape[1:]:
                state[name] = torch.cat((both[0], both[1]))
        return state, unknown

    def to_hf(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A checkpoint's tensors of ours."""
        found: dict[str, list[torch.Tensor]] = {}
        for name, tensor in state.items():
            for stem, place in self._places(name):
                parts, half = self._parts_of(stem, name), place[1]
                target = found.setdefault(stem, [None] * len(parts))
                target[place[0]] = tensor if half is None else tensor.chunk(2)[half]
        return {stem: parts[0] if len(parts) == 1 else torch.cat(parts) for stem, parts in found.items()}

    def hf_name(self, our: str) -> str:
        """The checkpoint's name (or names) of our tensor, for messages."""
        return " and ".join(sorted(stem for stem, _ in self._places(our)))

    def _places(self, our: str) -> list[tuple[str, tuple[int, int | None]]]:
        """Every checkpoint name that holds a part of our tensor: (name, (place in it, which half of ours or None))."""
        stem, _, suffix = our.rpartition(".")
        for theirs, ours in self.outer.items():
            if ours == stem:
                return [(f"{theirs}.{suffix}", (0, None))]
        found = re.fullmatch(r"layers\.(\d+)\.(.+)", stem)
        if found is None:
            return [(our, (0, None))]
        result, seen = [], set()
        for theirs, ours in self.inner.items():
            for place, part in enumerate((ours,) if isinstance(ours, str) else ours):
                name, half = _whole_of(part)
                if name == found[2] and part not in seen:
                    seen.add(part)
                    result.append((f"{self.layer.format(found[1])}{theirs}.{suffix}", (place, half)))
        return result or [(our, (0, None))]

    def _parts_of(self, hf_name: str, our: str) -> tuple[str, ...]:
        pieces = self.pieces(hf_name) if hf_name != our else [our]
        return tuple(pieces or [our])


@dataclass(frozen=True)
class MaskedLMNames:
    """How a family names its masked-LM head: decoder(LayerNorm(act(dense(h)))).

    Attributes:
        dense, norm, decoder: stems; a checkpoint without the decoder's weight has it tied to the word embeddings.
        bias: names of the decoder's bias; the first that is there is read, the first is written.
        activation: (config.json's field, the family's default), or None for gelu whatever the config says.
        dense_bias, norm_bias, decoder_bias: (config.json's field, the family's default) of whether there is one; None for
            always.
    """

    dense: str
    norm: str
    decoder: str
    bias: tuple[str, ...]
    activation: tuple[str, str] | None = None
    dense_bias: tuple[str, bool] | None = None
    norm_bias: tuple[str, bool] | None = None
    decoder_bias: tuple[str, bool] | None = None


def _whole_of(piece: str) -> tuple[str, int | None]:
    """("up.weight", 0) of "up#0.weight", and None for a name that is no half."""
    found = re.fullmatch(r"(.+)#([01])(\..+)?", piece)
    return (piece, None) if found is None else (found[1] + (found[3] or ""), int(found[2]))
