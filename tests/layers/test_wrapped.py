"""A module in a linear layer's or LayerNorm's place, as adapters stand there, is called and not read past."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sentcore import Encoder, EncoderConfig, PackedBatch

SIZES = {"vocab_size": 60, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48, "num_hidden_layers": 2}
FORMS = {
    "bert": {},
    "gated, rotary, norm first": {
        "position_embedding_type": "rotary", "gated": True, "norm_first": True, "hidden_act": "gelu", "up_bias": False,
    },
}  # fmt: skip
LEAVES = (
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.output",
    "attention.layer_norm",
    "feed_forward.up",
    "feed_forward.down",
    "feed_forward.layer_norm",
)


class Doubled(nn.Module):
    """Shows the weight beneath, as LoRA's layers do, and computes something else."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    @property
    def weight(self) -> torch.Tensor:
        return self.inner.weight

    @property
    def bias(self) -> torch.Tensor | None:
        return self.inner.bias

    @property
    def eps(self) -> float:
        return self.inner.eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.inner(x)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("form", FORMS)
def test_it_is_called(form, leaf, backend):
    torch.manual_seed(2)
    plain = Encoder(EncoderConfig(**SIZES, **FORMS[form]), backend).eval()
    for parameter in plain.parameters():
        nn.init.normal_(parameter, std=0.3)
    wrapped = copy.deepcopy(plain)
    batch = PackedBatch.from_sequences([list(range(5, 5 + n)) for n in (3, 1, 17, 40)])
    before = wrapped(batch)  # with gradients
    with torch.no_grad():
        wrapped(batch)  # weights are packed
        module = plain.get_submodule(f"layers.1.{leaf}")
        module.weight.mul_(2)
        if module.bias is not None:
            module.bias.mul_(2)
    parent, _, name = leaf.rpartition(".")
    place = wrapped.layers[1].get_submodule(parent)
    setattr(place, name, Doubled(getattr(place, name)))
    expected, found = plain(batch), wrapped(batch)
    assert (expected - before).abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(wrapped(batch), expected, rtol=1e-4, atol=1e-4)
    expected.square().sum().backward()
    found.square().sum().backward()
    torch.testing.assert_close(
        wrapped.embeddings.word_embeddings.weight.grad,
        plain.embeddings.word_embeddings.weight.grad,
        rtol=1e-3,
        atol=1e-3 * float(plain.embeddings.word_embeddings.weight.grad.abs().max()),
    )


def test_a_forward_hook_is_called_without_gradients_too():
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(**SIZES)).eval()
    batch = PackedBatch.from_sequences([[5, 6, 7], [8]])
    with torch.no_grad():
        before = encoder(batch)
        encoder.layers[0].feed_forward.down.register_forward_hook(lambda module, args, out: 3 * out)
        assert (encoder(batch) - before).abs().max() > 1e-3
