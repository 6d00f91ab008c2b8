"""A sentcore Encoder that stands on the leaf modules of a transformers encoder: no weight is copied, none is renamed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from sentcore.checkpoint.families import family_of
from sentcore.checkpoint.naming import Names
from sentcore.errors import ArgumentValueError
from sentcore.integrations.acceleration.classes import original_class
from sentcore.layers import Encoder
from sentcore.layers.attention import Attention
from sentcore.layers.feed_forward import FeedForward

_LEAVES = (nn.Linear, nn.LayerNorm, nn.Embedding)


class Borrowed:
    """An Encoder whose linear layers, LayerNorms and tables are another model's modules.

    They are looked up anew at every call (`refresh`), as adapters and resized tables replace them. What stands between them
    (containers, dropout) must be as the model's class builds it: then, and only then, ours computes the same.

    Raises:
        ArgumentValueError: the model is a decoder, or something stands in it that its class does not build; by path and class.
        CheckpointError: its configuration asks for something that is not supported; by field.
    """

    def __init__(self, model: nn.Module, backend: str) -> None:
        kind = original_class(type(model))
        values = model.config.to_dict()
        label = Path(f"{kind.__name__}.config")
        if getattr(model.config, "is_decoder", False) or getattr(model.config, "add_cross_attention", False):
            raise ArgumentValueError(f"{kind.__name__} is set up as a decoder (is_decoder); accepted: encoders")
        family = family_of(values, label)
        config = family.config_from_hf(values, label)
        with torch.device("meta"):
            self.encoder = Encoder(config, backend)
            as_built = kind(model.config)
        never_pack(self.encoder)
        self._layer_paths, self._links = _links(as_built, family.NAMES, self.encoder)
        # What our forward stands in for: the embeddings, the layers, all that is in them, and what the layers are in.
        roots = ("embeddings", *self._layer_paths)
        above = {path.rsplit(".", depth)[0] for path in self._layer_paths for depth in range(1, path.count(".") + 1)}
        parts = [
            (path, part)
            for path, part in as_built.named_modules()
            if path in above or path in roots or path.startswith(tuple(f"{root}." for root in roots))
        ]
        leaves = {path for _, _, path in self._links}
        self._containers = [
            (path, type(part), path in self._layer_paths, len(part) if isinstance(part, nn.ModuleList) else None)
            for path, part in parts
            if path not in leaves and not isinstance(part, nn.Dropout)
        ]
        self._dropouts = [(path, part.p) for path, part in parts if isinstance(part, nn.Dropout)]
        self._model = model
        reason = self.refresh()
        if reason is not None:
            raise ArgumentValueError(f"{kind.__name__} cannot be run packed: {reason}. It is left as it was")

    def layers(self) -> list[nn.Module]:
        """The model's own layers, a set of weights each."""
        return [_at(self._model, path) for path in self._layer_paths]

    def refresh(self) -> str | None:
        """Stands on the model's modules as they are now; what forbids it, or None."""
        for path, kind, is_layer, length in self._containers:
            part = _at(self._model, path)
            if part is None:
                return f"{path} is missing; accepted: as many layers as the configuration says. Set num_hidden_layers with them"
            if original_class(type(part)) is not kind or "forward" in part.__dict__:
                return f"{path} is of class {type(part).__name__}; accepted: {kind.__name__} itself (fully_shard comes after accelerate)"
            if length is not None and len(part) != length:
                return f"{path} holds {len(part)} modules, the configuration says {length}. Set num_hidden_layers with them"
            if not is_layer and is_hooked(part):
                return f"{path} has a hook; accepted on layers, and on the linear layers, LayerNorms and tables in them"
        for path, probability in self._dropouts:
            part = _at(self._model, path)
            if not isinstance(part, nn.Dropout) or part.p != probability:
                found = getattr(part, "p", type(part).__name__)
                return f"{path} drops with {found}, the configuration says {probability}. Set it there, before the model is built"
            if is_hooked(part):
                return f"{path} has a hook; accepted on layers, and on the linear layers, LayerNorms and tables in them"
        for parent, name, path in self._links:
            leaf = _at(self._model, path)
            if parent._modules.get(name) is not leaf:
                setattr(parent, name, leaf)
        self._follow()
        return None

    def _follow(self) -> None:
        """Sizes and modes of our modules, as the model's are now. Not by train(), which would reach into the model's leaves."""
        encoder, model = self.encoder, self._model
        rows = encoder.embeddings.word_embeddings
        vocabulary = getattr(rows, "num_embeddings", encoder.config.vocab_size)
        if vocabulary != encoder.config.vocab_size:
            encoder.config = dataclasses.replace(encoder.config, vocab_size=vocabulary)
        encoder.training = encoder.layers.training = model.training
        encoder.embeddings.training = model.embeddings.training
        for ours, theirs in zip(encoder.layers, self.layers(), strict=True):
            ours.training = ours.attention.training = ours.feed_forward.training = theirs.training


def _links(as_built: nn.Module, names: Names, encoder: Encoder) -> tuple[list[str], list[tuple[nn.Module, str, str]]]:
    """The paths of the layers, and (our parent module, name in it, path of theirs) of every leaf."""
    theirs = dict(as_built.named_modules())
    found = [(ours, path) for path, ours in names.outer.items() if path in theirs]
    layer_paths = []
    for index in range(len(encoder.layers)):
        form = next(
            form for form in (names.layer, *names.other_layers) if form.format(index).removesuffix(".") in theirs
        )
        layer_paths.append(form.format(index).removesuffix("."))
        for path, ours in names.inner.items():
            place = _place(ours)
            if place is not None and isinstance(theirs.get(form.format(index) + path), _LEAVES):
                found.append((f"layers.{index}.{place}", form.format(index) + path))
    links = []
    for ours, path in found:
        parent, _, name = ours.rpartition(".")
        links.append((encoder.get_submodule(parent), name, path))
    _check_complete(as_built, encoder, links)
    return layer_paths, links


def _place(ours: str | tuple[str, ...]) -> str | None:
    """Where one of their linear layers stands among ours: three of ours in one, or a half of one; None for nowhere."""
    if isinstance(ours, tuple) and ours[0] == "attention.query":
        return "attention.qkv"
    if isinstance(ours, tuple):
        return None
    return {"feed_forward.up#0": "feed_forward.gate", "feed_forward.up#1": "feed_forward.up"}.get(ours, ours)


def _check_complete(as_built: nn.Module, encoder: Encoder, links: list[tuple[nn.Module, str, str]]) -> None:
    """Every leaf of ours has one of theirs; three projections in one leave ours unused."""
    linked = {(id(parent), name) for parent, name, _ in links}
    for module in list(encoder.modules()):
        if (id(module), "qkv") in linked:
            module.query = module.key = module.value = None
        for name, leaf in _leaves(module):
            if (id(module), name) not in linked:
                raise ArgumentValueError(
                    f"{type(as_built).__name__} of this version of transformers has no module for {name} "
                    f"({type(leaf).__name__}); accepted: the names that sentcore {type(encoder).__name__} knows"
                )


def _leaves(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    yield from ((name, child) for name, child in module.named_children() if isinstance(child, _LEAVES))


def never_pack(ours: nn.Module) -> None:
    """No weight is packed for inference: training scripts write to weights where torch's version counter does not see it.

    `weight.data.copy_` of moving averages and merged adapters, fused optimizers, and parameters that fully_shard gathers do so.
    """
    for module in ours.modules():
        if isinstance(module, (Attention, FeedForward)):
            module.packs_weights = False


def is_hooked(module: nn.Module) -> bool:
    """Whether a hook stands on the module; those that transformers leaves to collect outputs change nothing."""
    if module._backward_hooks or module._backward_pre_hooks:
        return True
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return any(getattr(hook, "__module__", None) != "transformers.utils.output_capturing" for hook in hooks)


def _at(model: nn.Module, path: str) -> nn.Module | None:
    """model.get_submodule(path) or None, without its checks, which cost more than all the rest of a call."""
    found: nn.Module | None = model
    for name in path.split("."):
        if found is None:
            return None
        found = found._modules.get(name)
    return found
