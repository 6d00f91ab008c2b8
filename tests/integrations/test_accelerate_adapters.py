"""accelerate: what stands in the place of a linear layer, a LayerNorm or a table is honoured."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

import sentcore
from accelerated import batches_for, classifier, pair, ragged, same, same_training


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


# ---- what stands in a linear layer's place --------------------------------------------------------------------------


class Bottleneck(nn.Module):
    """A bottleneck adapter around any module (Houlsby et al. 2019, https://arxiv.org/abs/1902.00751)."""

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner, self.down, self.up = inner, nn.Linear(width, 4), nn.Linear(4, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(x)
        return y + self.up(torch.relu(self.down(y)))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "path",
    [
        "attention.self.query",
        "attention.output.dense",
        "attention.output.LayerNorm",
        "intermediate.dense",
        "output.dense",
        "output.LayerNorm",
    ],
)
def test_an_adapter_is_honoured(path, when):
    theirs = classifier()
    ours = copy.deepcopy(theirs)
    if when == "after":
        sentcore.accelerate(ours)
    parent, _, name = path.rpartition(".")
    for model in (ours, theirs):
        torch.manual_seed(1)
        place = model.bert.encoder.layer[1].get_submodule(parent)
        leaf = getattr(place, name)
        setattr(place, name, Bottleneck(leaf, leaf.weight.shape[0]))
    sentcore.accelerate(ours)
    same_training(ours, theirs, batches_for("Token", 3, 0))
    with torch.no_grad():
        batch = ragged()
        real = batch["attention_mask"].bool()
        ours.eval(), theirs.eval()
        same(ours(**batch).logits[real], theirs(**batch).logits[real])


@pytest.mark.parametrize("fused", [False, True])
def test_lora(fused):
    peft = pytest.importorskip("peft")
    kind = "ModernBertForTokenClassification" if fused else "BertForTokenClassification"
    config = peft.LoraConfig(
        r=4,
        lora_dropout=0.0,
        init_lora_weights=False,
        target_modules=["Wqkv", "Wi"] if fused else ["query", "value", "dense"],
    )
    base = classifier(kind)
    torch.manual_seed(2)
    theirs = peft.get_peft_model(copy.deepcopy(base), config)
    torch.manual_seed(2)
    ours = sentcore.accelerate(peft.get_peft_model(base, config))
    same_training(ours, theirs, batches_for(kind, 20, 0))


def test_adalora():
    peft = pytest.importorskip("peft")
    base, found = classifier(), []
    for model in (sentcore.accelerate(copy.deepcopy(base)), base):
        torch.manual_seed(2)
        config = peft.AdaLoraConfig(
            task_type="TOKEN_CLS", init_r=4, target_r=2, tinit=2, tfinal=2, deltaT=1, total_step=10,
            target_modules=["query", "value", "output.dense"],
        )  # fmt: skip
        model = peft.get_peft_model(model, config).train()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        for step, batch in enumerate(batches_for("Token", 10, 0)):
            optimizer.zero_grad()
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            model.base_model.update_and_allocate(step)
            found.append(loss.item())
    assert found[:10] == pytest.approx(found[10:], rel=1e-4) and len(set(found[10:])) == 10


@pytest.mark.parametrize("kind", ["BertForSequenceClassification", "RobertaForSequenceClassification"])
def test_prompt_tuning_is_packed(kind):
    peft = pytest.importorskip("peft")

    base = classifier(kind)
    models = []
    for model in (sentcore.accelerate(copy.deepcopy(base)), base):
        torch.manual_seed(2)
        models.append(peft.get_peft_model(model, peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3)))
    same_training(*models, batches_for(kind, 6, base.config.pad_token_id))


def test_lora_on_a_table():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, init_lora_weights=False, target_modules=["word_embeddings", "query"])
    base, batch = classifier().eval(), ragged()
    torch.manual_seed(2)
    theirs = peft.get_peft_model(copy.deepcopy(base), config).eval()
    torch.manual_seed(2)
    ours = sentcore.accelerate(peft.get_peft_model(base, config)).eval()
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        same(ours(**batch).logits[real], theirs(**batch).logits[real])


def test_a_hook_on_a_linear_layer_is_called():
    ours, theirs = pair("bert")
    for model in (ours, theirs):
        model.encoder.layer[0].output.dense.register_forward_hook(lambda module, args, out: out * 1.5)
    batch = ragged()
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        same(ours(**batch)[0][real], theirs(**batch)[0][real])


def test_an_enlarged_vocabulary():
    ours, theirs = pair("bert")
    for model in (ours, theirs):
        torch.manual_seed(0)
        model.resize_token_embeddings(130, mean_resizing=False)
    ids = torch.tensor([[5, 120, 129]])
    with torch.no_grad():
        same(ours(ids)[0], theirs(ids)[0])
