"""accelerate and prefix tuning: PEFT's prefixes come as a cache, and stand before the keys of a packed batch."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import transformers as hf
from torch import nn

import sentcore
from accelerated import pair, ragged, same

LENGTH = 3


def with_prefix(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    ones = batch["attention_mask"].new_ones(len(batch["attention_mask"]), LENGTH)
    return batch | {"attention_mask": torch.cat((ones, batch["attention_mask"]), dim=1)}


def drawn_cache(model: hf.PreTrainedModel, texts: int, seed: int = 0, requires_grad: bool = False):
    """A cache of LENGTH random keys and values a layer, and its tensors."""
    config, cache, tensors = model.config, hf.DynamicCache(), []
    generator = torch.Generator().manual_seed(seed)
    heads = config.num_attention_heads
    for layer in range(config.num_hidden_layers):
        pair = [
            torch.randn(texts, heads, LENGTH, config.hidden_size // heads, generator=generator).requires_grad_(
                requires_grad
            )
            for _ in range(2)
        ]
        cache.update(*pair, layer)
        tensors += pair
    return cache, tensors


@pytest.fixture(autouse=True)
def _no_warning_of_own_code():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta", "electra"])
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_hidden_states_and_gradients(name, left, backend):
    ours, theirs = pair(name, backend)
    batch = ragged(pad=theirs.config.pad_token_id, left=left)
    real = batch["attention_mask"].bool()
    found = []
    for model in (ours, theirs):
        cache, tensors = drawn_cache(model, len(real), requires_grad=True)
        out = model(**with_prefix(batch), past_key_values=cache, output_hidden_states=True)
        out[0][real].square().sum().backward()
        found.append([*(state[real] for state in out.hidden_states), *(tensor.grad for tensor in tensors)])
    for mine, other in zip(*found, strict=True):
        same(mine.detach(), other.detach())


def test_without_a_mask_and_with_positions():
    ours, theirs = pair("bert")
    ids = torch.randint(5, 90, (2, 6))
    for options in ({}, {"position_ids": torch.arange(6)[None] + 1}):
        with torch.no_grad():
            found, wanted = (m(ids, past_key_values=drawn_cache(m, 2)[0], **options)[0] for m in (ours, theirs))
        same(found, wanted)


@pytest.mark.parametrize("projected", [False, True])
def test_peft_trains_to_the_same_losses(projected):
    peft = pytest.importorskip("peft")
    config = peft.PrefixTuningConfig(
        task_type="FEATURE_EXTRACTION", num_virtual_tokens=LENGTH, prefix_projection=projected, encoder_hidden_size=16
    )
    base = pair("bert")[1].eval()  # without dropout
    batch = ragged()
    losses = []
    for model in (sentcore.accelerate(copy.deepcopy(base)), base):
        torch.manual_seed(2)
        tuned, head = peft.get_peft_model(model, config), nn.Linear(model.config.hidden_size, 2)
        trained = [*(p for p in tuned.parameters() if p.requires_grad), *head.parameters()]
        before = [p.detach().clone() for p in trained]
        optimizer = torch.optim.AdamW(trained, lr=1e-2)
        for _ in range(8):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(head(tuned(**batch)[0][:, 0]), torch.tensor([0, 1, 1, 0]))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert not any(map(torch.equal, before, trained))
    assert losses[:8] == pytest.approx(losses[8:], rel=1e-4) and losses[7] < losses[0]


@pytest.mark.parametrize("case", ["masked", "lengths", "empty"])
def test_another_cache_is_left_to_the_model_with_a_warning(case):
    ours, theirs = pair("bert")
    batch = with_prefix(ragged())
    caches = [drawn_cache(model, len(batch["input_ids"]))[0] for model in (ours, theirs)]
    if case == "masked":
        batch["attention_mask"][0, 0] = 0
    elif case == "lengths":
        for cache in caches:
            last = cache.layers[-1]
            last.keys, last.values = last.keys[:, :, :0], last.values[:, :, :0]
        batch["attention_mask"] = None
    else:
        caches = [hf.DynamicCache(), hf.DynamicCache()]
        batch = ragged()
    with torch.no_grad():
        with pytest.warns(RuntimeWarning, match="cache|past_key_values"):
            found = ours(**batch, past_key_values=caches[0])
        assert torch.equal(found[0], theirs(**batch, past_key_values=caches[1])[0])
