"""linear_add_layer_norm: the definition, what is refused, and where a layer calls it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from compare import assert_as_accurate
from sentcore import Encoder, EncoderConfig, PackedBatch, ops
from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.layers import all_layers, attention, feed_forward, fused_norm
from sentcore.ops.linear_add_layer_norm import WIDTH, is_taken

NAMES = ("x", "weight", "bias", "residual", "norm_weight", "norm_bias")


def draw(tokens=9, depth=40, dtype=torch.float32):
    generator = torch.Generator().manual_seed(tokens)
    shapes = ((tokens, depth), (WIDTH, depth), (WIDTH,), (tokens, WIDTH), (WIDTH,), (WIDTH,))
    return {
        name: torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
        for name, shape in zip(NAMES, shapes, strict=True)
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tokens", [0, 1, 17])
def test_it_is_linear_and_add_layer_norm(dtype, tokens):
    t = draw(tokens, dtype=dtype)
    wide = {name: value.double() for name, value in t.items()}
    out = ops.linear_add_layer_norm(*t.values(), eps=1e-5)

    def parts(s):
        product = ops.reference.linear(s["x"], s["weight"], s["bias"])
        return ops.reference.add_layer_norm(product, s["residual"], s["norm_weight"], s["norm_bias"], eps=1e-5)

    assert_as_accurate(out, parts(t), parts(wide), "out")
    assert_as_accurate(
        ops.linear_add_layer_norm(t["x"], t["weight"], None, t["residual"], t["norm_weight"], None, eps=1e-5),
        parts(t | {"bias": None, "norm_bias": None}),
        parts(wide | {"bias": None, "norm_bias": None}),
    )


def test_opcheck():
    arguments = [*draw().values(), 1e-5]
    torch.library.opcheck(torch.ops.sentcore.linear_add_layer_norm.default, arguments)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"weight": torch.ones(768, 40)}, ArgumentValueError, r"weight has shape \[768, 40\]; accepted: \[384, 40\]"),
        ({"residual": torch.ones(8, 384)}, ArgumentValueError, r"residual has shape \[8, 384\]; accepted: \[9, 384\]"),
        ({"norm_weight": torch.ones(384).half()}, ArgumentTypeError, "norm_weight has dtype torch.float16"),
        (
            {"bias": torch.ones(384, requires_grad=True)},
            ArgumentValueError,
            "Use linear and add_layer_norm for training",
        ),
    ],
)
def test_refusals(change, error, message):
    with pytest.raises(error, match=message):
        ops.linear_add_layer_norm(*(draw() | change).values(), eps=1e-5)


def test_a_cpu_does_not_take_it():
    t = draw(dtype=torch.bfloat16)
    assert not is_taken(t["x"], t["weight"])


# ---- in a layer, as if a GPU were there ----


@pytest.fixture
def calls(monkeypatch):
    """How often the op was called; layers on CPUs may call it."""
    found = []

    monkeypatch.setattr(fused_norm, "_on_gpu", lambda x: True)
    for layers in (all_layers, attention, feed_forward):  # not through the CPU's packed weights
        monkeypatch.setattr(layers, "usable", lambda *_: False)
    monkeypatch.setattr(fused_norm, "is_taken", lambda x, weight, *others: weight.shape[0] == WIDTH)
    run = ops.backends._NATIVE.linear_add_layer_norm
    monkeypatch.setattr(ops.backends._NATIVE, "linear_add_layer_norm", lambda *a, **k: found.append(1) or run(*a, **k))
    return found


@pytest.fixture
def encoder():
    config = EncoderConfig(
        vocab_size=50, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=12, intermediate_size=64,
        max_position_embeddings=32,
    )  # fmt: skip
    torch.manual_seed(0)
    encoder = Encoder(config).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return encoder


@pytest.fixture
def batch():
    ids = torch.arange(3, 11)
    positions = torch.tensor([0, 1, 2, 0, 0, 1, 2, 3])
    return PackedBatch(ids, positions, torch.zeros_like(ids), torch.tensor([0, 3, 4, 8], dtype=torch.int32), 4)


def test_both_halves_of_every_layer_call_it(calls, encoder, batch, monkeypatch):
    with torch.no_grad():
        found = encoder(batch)
    assert len(calls) == 4
    monkeypatch.setattr(fused_norm, "_fits", lambda *_: False)
    with torch.no_grad():
        torch.testing.assert_close(found, encoder(batch), rtol=1e-5, atol=1e-5)


def test_what_stands_in_the_way_is_run_one_by_one(calls, encoder, batch):
    encoder(batch)  # with gradients
    with torch.no_grad():
        copy.deepcopy(encoder).train()(batch)
        for part in ("attention", "feed_forward"):
            hooked = copy.deepcopy(encoder)
            for layer in hooked.layers:
                getattr(layer, part).register_forward_hook(lambda *_: None)
            hooked(batch)
            assert len(calls) == 2, part  # of the other half
            calls.clear()
        other = copy.deepcopy(encoder)
        for layer in other.layers:
            layer.attention.output = nn.Sequential(layer.attention.output)
            layer.feed_forward.layer_norm.register_forward_hook(lambda *_: None)
        other(batch)
        wider = Encoder(EncoderConfig(**(vars(encoder.config) | {"hidden_size": 96, "num_attention_heads": 3}))).eval()
        wider(batch)
    assert calls == []
