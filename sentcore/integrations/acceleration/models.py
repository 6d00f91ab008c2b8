"""The forward of an accelerated transformers encoder: out of padding, through its layers, back into padding."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import torch
from torch import nn

from sentcore.integrations.acceleration.classes import Accelerated, original_class, warn_of_own_code
from sentcore.integrations.acceleration.prefixes import ARGUMENTS, Past, past_of
from sentcore.layers.padding import pack_padded, unpack_padded
from sentcore.packed import PackedBatch

_INPUTS = ("input_ids", "inputs_embeds", "attention_mask", "token_type_ids", "position_ids")
_WITHOUT_EFFECT = ("num_items_in_batch",)  # the Trainer's, for losses; encoders do not look at it
_SWITCHES = ("output_hidden_states", "output_attentions", "return_dict")


class AcceleratedLayer(Accelerated):
    """A layer that runs ours where it is handed one, and its own code where it is called as ever.

    Calling it as a module keeps what stands around a layer: hooks, sharded parameters, gradient checkpointing.
    """

    def forward(self, *args: Any, packed: tuple | None = None, **kwargs: Any) -> Any:
        """`packed` is (our EncoderLayer, the PackedBatch, its Positions); [T, H] -> [T, H] then."""
        if packed is None:
            return super().forward(*args, **kwargs)
        ours, batch, positions = packed
        return ours(*args, batch, positions)


class AcceleratedModel(Accelerated):
    """An encoder that computes no padding."""

    @torch.compiler.disable
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the class's own forward: the same arguments, the same output object."""
        given = dict(zip(_parameters(original_class(type(self))), args, strict=False)) | kwargs
        given = {name: value for name, value in given.items() if value is not None}
        switches = {name: given.get(name, getattr(self.config, name, name == "return_dict")) for name in _SWITCHES}
        past = self._past(given)
        reason = _beyond(given, switches, past) or self._sentcore.refresh()
        if reason is not None:
            # Attentions are asked for on purpose; anything else is said, once for each reason.
            if not switches["output_attentions"]:
                warn_of_own_code(self, reason)
            return super().forward(*args, **kwargs)
        encoder, config = self._sentcore.encoder, self._sentcore.encoder.config
        embeds = given.get("inputs_embeds")
        # Where vectors are given there are no ids, and so none that positions would not count.
        ids = given["input_ids"] if embeds is None else embeds.new_zeros(embeds.shape[:2], dtype=torch.int64)
        mask = given.get("attention_mask")
        batch, places = pack_padded(
            ids,
            mask if past is None or mask is None else mask[:, past.length :],
            _expanded(given.get("token_type_ids"), ids),
            _expanded(given.get("position_ids"), ids),
            config.position_offset,
            config.uncounted_id if embeds is None else None,
        )
        if past is not None and "position_ids" not in given:
            batch = past.moved(batch)
        encoder.check_batch(batch)
        words = None if embeds is None else embeds.flatten(0, 1)[places]
        states = self._packed_states(batch, words, switches["output_hidden_states"], past)
        padded = [unpack_padded(state, places, ids.shape) for state in states]
        return _output(self, padded, switches)

    def _past(self, given: dict[str, Any]) -> Past | None:
        ids = given.get("input_ids", given.get("inputs_embeds"))
        if ids is None or not any(name in given for name in ARGUMENTS):
            return None
        config = self._sentcore.encoder.config
        return past_of(given, config, len(self._sentcore.encoder.order()), ids.shape[0])

    def _packed_states(
        self, batch: PackedBatch, words: torch.Tensor | None, all_of_them: bool, past: Past | None
    ) -> list[torch.Tensor]:
        """[T, H] behind the last layer, or behind the embeddings and every layer."""
        encoder, layers = self._sentcore.encoder, self._sentcore.layers()
        x = encoder.embeddings(batch, words)
        positions = encoder.positions(batch)
        prefixes = None if past is None else past.prefixes(batch)
        states = [x]
        for place, group in enumerate(encoder.order()):
            there = positions[encoder.config.is_sliding(place)]
            if prefixes is not None:
                there = there._replace(prefix=prefixes[place])
            x = layers[group](x, packed=(encoder.layers[group], batch, there))
            states = [*states, x] if all_of_them else [x]
        states[-1] = encoder.finish(states[-1])
        return states


def _beyond(given: dict[str, Any], switches: dict[str, Any], past: Past | None) -> str | None:
    """What a call asks for that packed batches do not give, or None."""
    if switches["output_attentions"]:
        return "output_attentions"
    known = (*_INPUTS, *_SWITCHES, *_WITHOUT_EFFECT, *(ARGUMENTS if past is not None else ()))
    beyond = [name for name in given if name not in known and given[name] is not False]
    if beyond:
        return f"the argument {beyond[0]} is given"
    if ("input_ids" in given) == ("inputs_embeds" in given):
        return "input_ids and inputs_embeds are both given, or none of them"
    texts = given["input_ids"].shape if "input_ids" in given else given["inputs_embeds"].shape[:2]
    mask, before = given.get("attention_mask"), 0 if past is None else past.length
    shape = [texts[0], texts[1] + before]
    if mask is not None and (not isinstance(mask, torch.Tensor) or list(mask.shape) != shape):
        return f"attention_mask has shape {list(getattr(mask, 'shape', []))}; packed are masks of {shape}, a row a text"
    if mask is not None and before and not bool((mask[:, :before] != 0).all()):
        return "attention_mask masks a part of the cache"
    return None


def _expanded(value: torch.Tensor | None, ids: torch.Tensor) -> torch.Tensor | None:
    """[B, S]; position_ids may come as [1, S]."""
    return value if value is None else value.expand(ids.shape)


def _output(model: nn.Module, padded: list[torch.Tensor], switches: dict[str, Any]) -> Any:
    from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling

    last = padded[-1]
    hidden_states = tuple(padded) if switches["output_hidden_states"] else None
    if hasattr(model, "pooler"):
        output = BaseModelOutputWithPooling(
            last_hidden_state=last, pooler_output=_pooled(model, last), hidden_states=hidden_states
        )
    else:
        output = BaseModelOutput(last_hidden_state=last, hidden_states=hidden_states)
    return output if switches["return_dict"] else output.to_tuple()


def _pooled(model: nn.Module, last: torch.Tensor) -> torch.Tensor | None:
    if model.pooler is None:
        return None
    if isinstance(model.pooler, nn.Linear) or hasattr(model, "pooler_activation"):  # ALBERT's
        return model.pooler_activation(model.pooler(last[:, 0]))
    return model.pooler(last)


@cache
def _parameters(kind: type) -> tuple[str, ...]:
    """Names of the arguments of a class's forward, in order, without self."""
    return tuple(inspect.signature(kind.forward).parameters)[1:]
