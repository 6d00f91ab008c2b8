"""accelerate on torch.nn.TransformerEncoder and TransformerEncoderLayer: their outputs, gradients, dropout, and back again."""

from __future__ import annotations

import copy
import itertools
import pickle
import warnings

import pytest
import torch
from torch import nn

import sentcore
from accelerated import BACKENDS, LENGTHS, same, same_training
from sentcore.errors import ArgumentValueError

H = 24


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


def layer(**options) -> nn.TransformerEncoderLayer:
    torch.manual_seed(0)
    made = nn.TransformerEncoderLayer(H, 3, **{"dim_feedforward": 40, "dropout": 0.0, "batch_first": True, **options})
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def stack(norm: bool = True, **options) -> nn.TransformerEncoder:
    made = nn.TransformerEncoder(layer(**options), 2, nn.LayerNorm(H) if norm else None, enable_nested_tensor=False)
    with torch.no_grad():
        for parameter in made.layers[1].parameters():
            parameter.add_(0.1)
    return made


def inputs(batch_first: bool = True, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """src, and src_key_padding_mask [B, S]."""
    torch.manual_seed(1)
    padding = torch.ones(len(LENGTHS), max(LENGTHS), dtype=torch.bool)
    for row, length in enumerate(LENGTHS):
        padding[row, slice(-length, None) if left else slice(0, length)] = False
    src = torch.randn(*padding.shape, H)
    return (src if batch_first else src.transpose(0, 1)), padding


def causal(kind: torch.dtype = torch.bool) -> torch.Tensor:
    later = torch.ones(max(LENGTHS), max(LENGTHS), dtype=torch.bool).triu(1)
    return later if kind == torch.bool else torch.zeros(later.shape).masked_fill(later, -torch.inf)


VARIANTS = [*itertools.product([False, True], [False, True], ["relu", "gelu"], [False, True])]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("norm_first, batch_first, activation, masked", VARIANTS)
def test_outputs_and_gradients(norm_first, batch_first, activation, masked, backend):
    theirs = stack(norm_first=norm_first, batch_first=batch_first, activation=activation)
    ours = sentcore.accelerate(copy.deepcopy(theirs), backend)
    assert (
        list(ours.state_dict()) == list(theirs.state_dict())
        and "layers.0.self_attn.in_proj_weight" in ours.state_dict()
    )
    src, padding = inputs(batch_first)
    real = ~padding if batch_first else ~padding.T
    mask = causal() if masked else None
    weights = torch.randn(src.shape) * real[..., None]
    gradients = []
    for model in (ours, theirs):
        given = src.clone().requires_grad_()
        out = model(given, mask, padding)
        (out * weights).sum().backward()
        gradients.append({"src": given.grad, **{name: p.grad for name, p in model.named_parameters()}})
        if model is ours:
            found = out.detach()
    same(found[real], out[real])
    assert not found[~real].any()
    scale = max(gradient.norm() for gradient in gradients[1].values())
    for name, other in gradients[1].items():
        assert (gradients[0][name] - other).norm() <= 1e-4 * other.norm() + 1e-6 * scale, name
    with torch.no_grad():
        ours.eval(), theirs.eval()
        same(ours(src, mask, padding)[real], theirs(src, mask, padding)[real])


@pytest.mark.parametrize(
    "options", [{"bias": False}, {"norm_first": True, "activation": nn.GELU("tanh")}, {"dropout": 0.5}]
)
def test_one_layer_alone(options):
    theirs = layer(**options).eval()
    ours = sentcore.accelerate(copy.deepcopy(theirs))
    src, padding = inputs()
    with torch.no_grad():
        out, expected = ours(src, src_key_padding_mask=padding), theirs(src, src_key_padding_mask=padding)
        same(out[~padding], expected[~padding])
        same(ours(src[0]), theirs(src[0]))  # [S, H]


def test_masks_of_numbers_and_padding_on_the_left():
    theirs = stack()
    ours = sentcore.accelerate(copy.deepcopy(theirs))
    src, padding = inputs(left=True)
    numbers = torch.zeros(padding.shape).masked_fill(padding, -torch.inf)
    for mask, given in ((None, numbers), (causal(torch.float32), numbers)):
        expected = theirs(src, mask, given)
        same(ours(src, mask, given)[~padding], expected[~padding])
    same(ours(src), theirs(src))
    same(ours(src, causal(torch.float32), is_causal=True), theirs(src, causal(torch.float32), is_causal=True))


def test_a_text_that_is_all_padding_is_zeros():
    ours = sentcore.accelerate(stack())
    src, padding = inputs()
    padding[1] = True
    out = ours(src, src_key_padding_mask=padding)
    assert not out[1].any() and torch.isfinite(out).all()


@pytest.mark.parametrize(
    "message, given",
    [
        ("mask is not the causal one", {"mask": torch.ones(40, 40, dtype=torch.bool).triu(3)}),
        ("mask is not the causal one", {"mask": torch.eye(40)}),
        ("mask is not the causal one", {"mask": torch.ones(40, 40, dtype=torch.bool).triu(3), "is_causal": False}),
        ("src_key_padding_mask adds to scores", {"src_key_padding_mask": torch.randn(4, 40)}),
    ],
)
def test_other_masks_are_left_to_torch_with_a_warning(message, given):
    theirs = stack()
    ours = sentcore.accelerate(copy.deepcopy(theirs))
    src, _ = inputs()
    with pytest.warns(RuntimeWarning, match=message):
        found = ours(src, **given)
    assert torch.equal(found, theirs(src, **given))


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_losses_of_a_classifier(norm_first):
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.encoder, self.head = nn.Embedding(30, H), stack(norm_first=norm_first), nn.Linear(H, 3)

        def forward(self, ids, labels):
            padding = ids == 0
            out = self.encoder(self.table(ids), src_key_padding_mask=padding)
            return nn.functional.cross_entropy(self.head(out).flatten(0, 1), labels.flatten(), ignore_index=-100)

    theirs = Classifier()
    ours = sentcore.accelerate(copy.deepcopy(theirs))
    _, padding = inputs()
    batches = []
    for _ in range(20):
        ids = torch.randint(1, 30, padding.shape).masked_fill(padding, 0)
        batches.append({"ids": ids, "labels": (ids % 3).masked_fill(padding, -100)})
    same_training(ours, theirs, batches)


def test_dropout_is_replayed_by_its_seed_and_has_the_same_mean():
    theirs = stack(dropout=0.1)
    ours = sentcore.accelerate(copy.deepcopy(theirs))
    src, padding = inputs()
    seeds = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        seeds.append(ours(src, src_key_padding_mask=padding))
    assert torch.equal(seeds[0], seeds[1]) and not torch.equal(seeds[0], seeds[2])
    # 2,000 passes over two texts: as many copies of them in a batch, each with a dropout of its own.
    src, padding = src[:2, :6].repeat(500, 1, 1), padding[:2, :6].repeat(500, 1)
    real = ~padding[:2]
    with torch.no_grad():
        mine, others = (
            torch.cat([model(src, src_key_padding_mask=padding).view(500, 2, 6, H)[:, real] for _ in range(4)])
            for model in (ours, theirs)
        )
    error = ((mine.var(0) + others.var(0)) / 2000).sqrt()  # of the difference of the two means
    distance = (mine.mean(0) - others.mean(0)) / error
    assert distance.abs().max() < 5 and distance.square().mean() < 2
    assert abs(mine.var(0).mean() / others.var(0).mean() - 1) < 0.05


def test_the_mode_of_one_dropout_alone():
    ours = sentcore.accelerate(stack(dropout=0.5))
    src, _ = inputs()
    for one in ours.layers:
        one.dropout.eval(), one.dropout1.eval(), one.dropout2.eval(), one.self_attn.eval()
    assert torch.equal(ours(src), ours(src))
    ours.layers[0].self_attn.train()
    assert not torch.equal(ours(src), ours(src))


def test_hooks_on_layers_and_linear_layers_are_called():
    theirs = stack()
    ours = sentcore.accelerate(copy.deepcopy(theirs))
    for model in (ours, theirs):
        model.layers[0].register_forward_hook(lambda module, args, out: 2 * out)
        model.layers[1].linear2.register_forward_hook(lambda module, args, out: out + 1)
    src, padding = inputs()
    same(ours(src, None, padding)[~padding], theirs(src, None, padding)[~padding])
    for model in (ours, theirs):
        model.layers[1].self_attn.register_forward_hook(lambda module, args, out: (2 * out[0], None))
    with pytest.warns(RuntimeWarning, match=r"layers\.1: self_attn is of class MultiheadAttention or has a hook"):
        found = ours(src, None, padding)
    assert torch.equal(found, theirs(src, None, padding))


def test_layers_added_later_are_never_passed_by():
    theirs = stack()
    ours = sentcore.accelerate(copy.deepcopy(theirs))
    for model in (ours, theirs):
        model.layers.append(layer())
    src, _ = inputs()
    with pytest.warns(RuntimeWarning, match="layers holds 3 modules"):
        assert torch.equal(ours(src), theirs(src))
    sentcore.accelerate(sentcore.restore(ours))
    same(ours(src), theirs(src))


@pytest.mark.parametrize("make", [stack, layer])
def test_copies_pickles_and_the_way_back(make):
    theirs = make()
    ours = sentcore.accelerate(copy.deepcopy(theirs))
    src, padding = inputs()
    expected = ours(src, src_key_padding_mask=padding)
    for copied in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(copied(src, src_key_padding_mask=padding), expected)
        with torch.no_grad():
            next(copied.parameters()).zero_()
        assert not torch.equal(copied(src, src_key_padding_mask=padding), expected)
    assert torch.equal(ours(src, src_key_padding_mask=padding), expected)
    sentcore.restore(ours)
    for mine, other in zip(ours.modules(), theirs.modules(), strict=True):
        assert type(mine) is type(other) and mine.__dict__.keys() == other.__dict__.keys()
    assert torch.equal(ours(src, src_key_padding_mask=padding), theirs(src, src_key_padding_mask=padding))


def test_autocast_and_the_encoder_of_a_transformer():
    theirs = nn.Transformer(H, 4, 2, 2, 40, dropout=0.0, batch_first=True).requires_grad_(False)
    ours = sentcore.accelerate(copy.deepcopy(theirs))
    src, padding = inputs()
    call = {"src_key_padding_mask": padding, "memory_key_padding_mask": padding}
    exact = theirs(src, src, **call)
    same(ours(src, src, **call), exact)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = ours(src, src, **call), theirs(src, src, **call)
    assert found.dtype == expected.dtype == torch.float32
    assert 1e-4 < (found - exact).norm() / exact.norm() <= 2 * (expected - exact).norm() / exact.norm()


@pytest.mark.parametrize(
    "message, change",
    [
        ("activation is", {"activation": nn.functional.silu}),
        ("self_attn has kdim", lambda made: setattr(made, "self_attn", nn.MultiheadAttention(H, 3, kdim=8, vdim=8))),
        (r"dropout1 drops with 0\.0, dropout2 with 0\.5", lambda made: setattr(made.dropout2, "p", 0.5)),
    ],
)
def test_what_is_refused_leaves_the_module_untouched(message, change):
    made = layer(**change) if isinstance(change, dict) else layer()
    if not isinstance(change, dict):
        change(made)
    model = nn.ModuleList([stack(), made])
    with pytest.raises(ArgumentValueError, match=f"TransformerEncoderLayer cannot be run packed: {message}"):
        sentcore.accelerate(model)
    assert not any("_sentcore" in module.__dict__ for module in model.modules())
    assert type(model[0]) is nn.TransformerEncoder and type(model[0].layers[0]) is nn.TransformerEncoderLayer
