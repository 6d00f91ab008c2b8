"""accelerate: the losses and parameters of transformers' own models, step by step."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch

import sentcore
from accelerated import batches_for, classifier, pair, ragged, same, same_training, to


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


@pytest.mark.parametrize(
    "kind",
    [
        "BertForTokenClassification",
        "BertForSequenceClassification",
        "MPNetForSequenceClassification",
        "ModernBertForTokenClassification",
        "RobertaForSequenceClassification",
    ],
)
def test_fifty_steps_of_training(kind, device):
    theirs = classifier(kind).to(device)
    ours = sentcore.accelerate(copy.deepcopy(theirs))
    same_training(ours, theirs, batches_for(kind, 50, theirs.config.pad_token_id))


def test_training_under_gradient_checkpointing(device):
    theirs = classifier().to(device)
    ours = sentcore.accelerate(copy.deepcopy(theirs))
    for model in (ours, theirs):
        model.gradient_checkpointing_enable()
    calls = []
    ours.bert.encoder.layer[1].register_forward_hook(lambda *_: calls.append(1))
    batches = batches_for("Token", 8, 0)
    same_training(ours, theirs, batches)
    assert len(calls) == len(batches)  # the hook stands around the recomputed part


def test_dropout_is_replayed_by_its_seed_and_by_checkpointing(device):
    model = classifier(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2).to(device)
    batch = to(device, batches_for("Token", 1, 0)[0])

    def gradients(checkpointing: bool, seed: int) -> list[torch.Tensor]:
        ours = sentcore.accelerate(copy.deepcopy(model)).train()
        if checkpointing:
            ours.gradient_checkpointing_enable()
        torch.manual_seed(seed)
        ours(**batch).loss.backward()
        return [p.grad for p in ours.parameters()]

    first = gradients(False, 5)
    assert all(map(torch.equal, first, gradients(False, 5)))
    assert all(map(torch.equal, first, gradients(True, 5)))
    assert not all(map(torch.equal, first, gradients(False, 6)))


def test_the_mean_over_dropout_is_what_is_expected(device):
    # One layer, so that nothing that is not linear follows the dropout but its own LayerNorm.
    torch.manual_seed(0)
    model = sentcore.accelerate(
        classifier(num_hidden_layers=1, hidden_dropout_prob=0.1, classifier_dropout=0.0).to(device)
    ).train()
    theirs = sentcore.restore(copy.deepcopy(model))
    batch = to(device, ragged())
    # 2,000 passes: a hundred copies of the texts in a batch, each with a dropout of its own, twenty times.
    copies = {name: value.repeat(100, 1) for name, value in batch.items()}
    with torch.no_grad():
        mine, others = (
            torch.cat([m(**copies).logits.view(100, *batch["input_ids"].shape, -1) for _ in range(20)])
            for m in (model, theirs)
        )
    real = batch["attention_mask"].bool()
    error = ((mine.var(0) + others.var(0)) / 2000).sqrt()[real]  # of the difference of the two means
    distance = (mine.mean(0) - others.mean(0))[real] / error
    assert distance.abs().max() < 5 and distance.square().mean() < 2


@pytest.mark.parametrize("name", ["bert", "modernbert", "mpnet"])
def test_autocast(name, device):
    ours, theirs = pair(name, device=device)
    batch = to(device, ragged(pad=theirs.config.pad_token_id))
    real = batch["attention_mask"].bool()
    weights = torch.randn(*batch["input_ids"].shape, theirs.config.hidden_size).to(device) * real[..., None]
    exact = theirs(**batch)[0].detach()[real]
    found = {}
    for key, model in (("ours", ours), ("theirs", theirs)):
        with torch.autocast(device, torch.bfloat16):
            out = model(**batch)[0]
        (out * weights).sum().backward()
        error = (out[real] - exact).norm() / exact.norm()
        found[key] = (out.dtype, error, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert found["ours"][0] == found["theirs"][0] == torch.float32
    assert 1e-4 < found["ours"][1] <= 2 * found["theirs"][1]  # lower precision was used, and no worse
    assert (found["ours"][2] - found["theirs"][2]).norm() <= 0.1 * found["theirs"][2].norm()


@pytest.mark.parametrize("how", ["fused optimizer", "data"])
def test_evaluation_sees_what_was_written_unnoticed(how):
    """Neither a fused optimizer nor what is written through `.data` moves torch's version counter."""
    theirs = classifier()
    ours = sentcore.accelerate(copy.deepcopy(theirs))
    batch = batches_for("Token", 1, 0)[0]
    real = batch["attention_mask"].bool()
    found = []
    for model in (ours, theirs):
        for _ in range(2):
            model.eval()
            with torch.no_grad():
                found.append(model(**batch).logits[real])
            model.train()
            if how == "data":
                for parameter in model.parameters():
                    parameter.data.mul_(0.9)
            else:
                optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
                model(**batch).loss.backward()
                optimizer.step()
    assert (found[0] - found[1]).abs().max() > 0.1
    # A fused step is as large where a gradient is rounding alone: only what matters to the outputs is compared, so 1e-3.
    torch.testing.assert_close(found[1], found[3], rtol=0, atol=1e-3)
    same(found[0], found[2])


def test_half_precision_with_a_scaled_loss(device):
    """Half the steps overflow on purpose: the scaler has to see it and to skip them, as with the untouched model."""
    theirs = classifier().to(device)
    ours = sentcore.accelerate(copy.deepcopy(theirs))
    found = []
    for model in (ours, theirs):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        scaler = torch.amp.GradScaler(device, init_scale=2.0**24, growth_interval=2)
        for batch in batches_for("Token", 12, 0):
            optimizer.zero_grad()
            with torch.autocast(device, torch.float16):
                loss = model(**to(device, batch)).loss
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            found.append((loss.item(), scaler.get_scale()))
    mine, others = found[:12], found[12:]
    assert [scale for _, scale in mine] == [scale for _, scale in others]
    assert min(scale for _, scale in mine) < 2.0**24
    for (a, _), (b, _) in zip(mine, others, strict=True):
        assert abs(a - b) <= 5e-3 * b  # ten times the rounding of half precision, 2^-11
    assert mine[-1][0] < mine[0][0]


def test_frozen_layers_and_an_embedding_row_for_padding():
    theirs = classifier()
    for parameter in theirs.bert.encoder.layer[0].parameters():
        parameter.requires_grad_(False)
    ours = sentcore.accelerate(copy.deepcopy(theirs))
    batch = batches_for("Token", 1, 0)[0]
    batch["input_ids"][0, 1] = 0  # the padding id within a text
    for model in (ours, theirs):
        model(**batch).loss.backward()
    assert all(p.grad is None for p in ours.bert.encoder.layer[0].parameters())
    mine, other = (m.bert.embeddings.word_embeddings.weight.grad for m in (ours, theirs))
    assert not other[0].any()
    torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-6)
