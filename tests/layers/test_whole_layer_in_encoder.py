"""Layers trained in one call inside the encoder: what they give with their parts, and out of the way where something stands between."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sentcore import Encoder, EncoderConfig, PackedBatch
from sentcore._extension import extension
from sentcore.layers import whole_layer
from sentcore.ops.encoder_layer import encoder_layer


@pytest.fixture(autouse=True)
def _with_kernels(monkeypatch):
    if extension() is None:
        pytest.skip("the compiled kernels are not here")
    monkeypatch.setattr(whole_layer, "_FEWEST_TOKENS", 1)


def make(**options) -> Encoder:
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 80, "num_hidden_layers": 2}
    encoder = Encoder(EncoderConfig(vocab_size=50, max_position_embeddings=64, **sizes | options)).train()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return encoder


def batch(lengths=(3, 1, 17, 40, 2)) -> PackedBatch:
    drawn = torch.Generator().manual_seed(1)
    return PackedBatch.from_sequences([torch.randint(0, 50, (n,), generator=drawn).tolist() for n in lengths])


@pytest.fixture
def calls(monkeypatch):
    """How many layers were run in one call each."""
    made = []

    def counted(*args, **options):
        made.append(1)
        return encoder_layer(*args, **options)

    monkeypatch.setattr(whole_layer, "encoder_layer", counted)
    return made


def trained(encoder: Encoder, seed: int = 7) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    encoder.zero_grad()
    out = encoder(batch())
    out.square().sum().backward()
    return [out.detach(), *(p.grad.clone() for p in encoder.parameters() if p.grad is not None)]


@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_tanh", "relu"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_an_encoder_trains_as_with_its_parts(hidden_act, dropout, calls, monkeypatch):
    encoder = make(hidden_act=hidden_act, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    whole = trained(encoder)
    assert len(calls) == 2
    monkeypatch.setattr(whole_layer, "_FEWEST_TOKENS", 1000)
    parts = trained(encoder)
    assert len(calls) == 2
    for found, expected in zip(whole, parts, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_dropout_is_replayed_by_its_seed_and_by_checkpointing(calls):
    encoder = make(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2, num_hidden_layers=1)
    first, again, other = trained(encoder), trained(encoder), trained(encoder, seed=8)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])
    given, layer = batch(), encoder.layers[0]
    states = encoder.embeddings(given).detach().requires_grad_()
    gradients = []
    for run in (layer, lambda *args: checkpoint(layer, *args, use_reentrant=False)):
        torch.manual_seed(7)
        gradients.append(torch.autograd.grad(run(states, given).square().sum(), states)[0])
    assert torch.equal(*gradients)
    assert len(calls) == 6  # the checkpointed one twice


class _Adapter(nn.Module):
    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    @property
    def weight(self) -> torch.Tensor:
        return self.linear.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + 1


def _replace(place: str):
    def change(encoder: Encoder) -> None:
        part, name = place.split(".")
        module = getattr(encoder.layers[0], part)
        setattr(module, name, _Adapter(getattr(module, name)))

    return change


def _hook(place: str):
    return lambda encoder: encoder.layers[0].get_submodule(place).register_forward_hook(lambda *_: None)


@pytest.mark.parametrize(
    "options, change",
    [
        ({}, _replace("attention.query")),
        ({}, _replace("feed_forward.down")),
        ({}, _hook("attention")),
        ({}, _hook("feed_forward")),
        ({}, _hook("feed_forward.up")),
        ({}, _hook("attention.layer_norm")),
        ({"hidden_size": 576}, None),
        ({"norm_first": True}, None),
        ({"gated": True}, None),
        ({"position_embedding_type": "alibi"}, None),
        ({"position_embedding_type": "rotary"}, None),
        ({"attention_bias": False}, None),
        ({"intermediate_dropout_prob": 0.1}, None),
        ({}, lambda encoder: encoder.double()),
        ({}, lambda encoder: encoder.bfloat16()),
        ({}, lambda encoder: encoder.requires_grad_(False)),
    ],
)
def test_parts_are_run_one_by_one_where_one_call_would_not_do(options, change, calls):
    encoder = make(num_hidden_layers=1, **options)
    if change is not None:
        change(encoder)
    encoder(batch())
    with torch.no_grad():
        encoder(batch())
    with torch.autocast("cpu"):
        encoder(batch())
    assert not calls
