"""accelerate: outputs, losses and gradients of transformers' own models, wherever the encoder stands, and back again."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import transformers as hf
from torch import nn

import sentcore
from families import FAMILIES, SMALL, make_model, randomize
from sentcore.errors import ArgumentTypeError, ArgumentValueError, CheckpointError

LENGTHS = (5, 1, 17, 40)
LARGEST = 1e-5  # beside the largest of the values compared
BACKENDS = ("auto", "reference")


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


def same(mine: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(mine, other, rtol=0, atol=LARGEST * max(1.0, float(other.abs().max())))


def ragged(vocabulary: int = 90, pad: int = 0, left: bool = False) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, vocabulary, (len(LENGTHS), max(LENGTHS)))
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        mask[row, slice(-length, None) if left else slice(0, length)] = 1
    ids[mask == 0] = pad
    return {"input_ids": ids, "attention_mask": mask}


def pair(name: str, backend: str = "auto") -> tuple[hf.PreTrainedModel, hf.PreTrainedModel]:
    model = make_model(name)
    return sentcore.accelerate(copy.deepcopy(model), backend), model


def classifier(kind: str = "BertForTokenClassification", **options) -> hf.PreTrainedModel:
    torch.manual_seed(3)
    name = kind.split("For")[0]
    sizes = {**SMALL, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_labels": 3, **options}
    if name == "ModernBert":
        sizes = {**SMALL, "num_labels": 3, "pad_token_id": 0, **options}
    elif name in ("Roberta", "MPNet"):
        sizes |= {"pad_token_id": 1, "max_position_embeddings": 514, "bos_token_id": 0, "eos_token_id": 2}
    model = getattr(hf, kind)(getattr(hf, f"{name}Config")(**sizes))
    randomize(model)
    return model


# ---- the same outputs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FAMILIES)
def test_hidden_states_and_pooled_outputs(name, backend):
    ours, theirs = pair(name, backend)
    batch = ragged(pad=theirs.config.pad_token_id or 0)
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        found = ours(**batch, output_hidden_states=True)
        expected = theirs(**batch, output_hidden_states=True)
        last = ours(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    for mine, other in zip(found.hidden_states, expected.hidden_states, strict=True):
        same(mine[real], other[real])
        assert not mine[~real].any()
    same(last[real], expected[0][real])
    assert (found.get("pooler_output") is None) == (expected.get("pooler_output") is None)
    if found.get("pooler_output") is not None:
        same(found.pooler_output, expected.pooler_output)
    assert type(ours(**batch, return_dict=False)) is tuple


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_of_every_parameter(name):
    ours, theirs = pair(name)
    batch = ragged(pad=theirs.config.pad_token_id or 0)
    weights = torch.randn(*batch["input_ids"].shape, theirs.config.hidden_size) * batch["attention_mask"][..., None]
    for model in (ours, theirs):
        (model(**batch)[0] * weights).sum().backward()
    scale = max(p.grad.norm() for p in theirs.parameters() if p.grad is not None)
    for (key, mine), (other_key, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert key == other_key
        if other.grad is None:
            assert mine.grad is None or not mine.grad.any(), key
        else:
            # A key's bias has no gradient but rounding: what is small beside the others is measured beside them.
            assert (mine.grad - other.grad).norm() <= 1e-4 * other.grad.norm() + 1e-6 * scale, key


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert"])
def test_padding_on_the_left(name):
    ours, theirs = pair(name)
    batch = ragged(pad=theirs.config.pad_token_id, left=True)
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        same(ours(**batch)[0][real], theirs(**batch)[0][real])


def test_positions_types_and_no_mask():
    ours, theirs = pair("bert")
    ids = torch.randint(5, 90, (3, 9))
    types = torch.randint(0, 2, ids.shape)
    for given in (
        {},
        {"token_type_ids": types},
        {"token_type_ids": types, "position_ids": torch.arange(2, 11)[None]},
    ):
        with torch.no_grad():
            same(ours(ids, **given)[0], theirs(ids, **given)[0])


# ---- the same training --------------------------------------------------------------------------------------------


def losses(model: nn.Module, batches: list[dict[str, torch.Tensor]], **call) -> list[float]:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    found = []
    model.train()
    for batch in batches:
        optimizer.zero_grad()
        loss = model(**batch, **call).loss
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def batches_for(kind: str, count: int, pad: int) -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(7)
    result = []
    for _ in range(count):
        batch = ragged(pad=pad)
        if "Token" in kind:
            labels = torch.randint(0, 3, batch["input_ids"].shape)
            batch["labels"] = labels.masked_fill(batch["attention_mask"] == 0, -100)
        else:
            batch["labels"] = torch.randint(0, 3, (len(LENGTHS),))
        result.append(batch)
    return result


def same_training(ours: nn.Module, theirs: nn.Module, batches: list[dict[str, torch.Tensor]]) -> None:
    mine, others = losses(ours, batches), losses(theirs, batches)
    assert len(set(others)) > len(others) // 2  # it learns something
    for step, (a, b) in enumerate(zip(mine, others, strict=True)):
        assert abs(a - b) <= 1e-4 * abs(b), step
    for (key, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        # Softmax does not change with a key's bias: its gradient is rounding alone, which AdamW scales up to whole steps.
        if key.endswith((".key.bias", ".k.bias")):
            continue
        assert (p - q).norm() <= 1e-4 * q.norm(), key


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
def test_fifty_steps_of_training(kind):
    theirs = classifier(kind)
    ours = sentcore.accelerate(copy.deepcopy(theirs))
    same_training(ours, theirs, batches_for(kind, 50, theirs.config.pad_token_id))


def test_training_under_gradient_checkpointing():
    theirs = classifier()
    ours = sentcore.accelerate(copy.deepcopy(theirs))
    for model in (ours, theirs):
        model.gradient_checkpointing_enable()
    calls = []
    ours.bert.encoder.layer[1].register_forward_hook(lambda *_: calls.append(1))
    batches = batches_for("Token", 8, 0)
    same_training(ours, theirs, batches)
    assert len(calls) == 2 * len(batches)  # computed again in the backward pass


def test_dropout_is_replayed_by_its_seed_and_by_checkpointing():
    model = classifier(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)
    batch = batches_for("Token", 1, 0)[0]

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


def test_the_mean_over_dropout_is_what_is_expected():
    # One layer, so that nothing that is not linear follows the dropout but its own LayerNorm.
    torch.manual_seed(0)
    model = sentcore.accelerate(
        classifier(num_hidden_layers=1, hidden_dropout_prob=0.1, classifier_dropout=0.0)
    ).train()
    theirs = sentcore.restore(copy.deepcopy(model))
    batch = ragged()
    with torch.no_grad():
        mine = torch.stack([model(**batch).logits for _ in range(2000)])
        others = torch.stack([theirs(**batch).logits for _ in range(2000)])
    real = batch["attention_mask"].bool()
    error = ((mine.var(0) + others.var(0)) / 2000).sqrt()[real]  # of the difference of the two means
    distance = (mine.mean(0) - others.mean(0))[real] / error
    assert distance.abs().max() < 5 and distance.square().mean() < 2


@pytest.mark.parametrize("name", ["bert", "modernbert", "mpnet"])
def test_autocast(name):
    ours, theirs = pair(name)
    batch = ragged(pad=theirs.config.pad_token_id)
    real = batch["attention_mask"].bool()
    weights = torch.randn(*batch["input_ids"].shape, theirs.config.hidden_size) * real[..., None]
    exact = theirs(**batch)[0].detach()[real]
    found = {}
    for key, model in (("ours", ours), ("theirs", theirs)):
        with torch.autocast("cpu", torch.bfloat16):
            out = model(**batch)[0]
        (out * weights).sum().backward()
        error = (out[real] - exact).norm() / exact.norm()
        found[key] = (out.dtype, error, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert found["ours"][0] == found["theirs"][0] == torch.float32
    assert 1e-4 < found["ours"][1] <= 2 * found["theirs"][1]  # lower precision was used, and no worse
    assert (found["ours"][2] - found["theirs"][2]).norm() <= 0.1 * found["theirs"][2].norm()


def test_two_processes():
    script = Path(__file__).with_name("ddp_steps.py")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "0",
        str(script),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count(": same") == 2


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


# ---- the model's own code, where packing is not what was asked for ----------------------------------------------------


def test_attentions_are_the_models_own():
    ours, theirs = pair("bert")
    batch = ragged()
    with torch.no_grad():
        mine, other = ours(**batch, output_attentions=True), theirs(**batch, output_attentions=True)
    assert all(map(torch.equal, mine.attentions, other.attentions))


def test_a_mask_of_four_dimensions_is_left_to_the_model_with_a_warning():
    ours, theirs = pair("bert")
    ids = torch.randint(5, 90, (2, 6))
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    with torch.no_grad():
        with pytest.warns(RuntimeWarning, match="attention_mask has shape"):
            found = ours(ids, attention_mask=mask)
        assert torch.equal(found[0], theirs(ids, attention_mask=mask)[0])


def test_a_container_replaced_later_is_left_to_the_model_with_a_warning():
    class Louder(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, hidden_states, input_tensor):
            return 2 * self.inner(hidden_states, input_tensor)

    ours, theirs = pair("bert")
    for model in (ours, theirs):
        model.encoder.layer[1].output = Louder(model.encoder.layer[1].output)
    batch = ragged()
    with torch.no_grad():
        with pytest.warns(RuntimeWarning, match=r"encoder\.layer\.1\.output is of class Louder"):
            found = ours(**batch)
        assert torch.equal(found[0], theirs(**batch)[0])
    restored = sentcore.restore(ours)
    with pytest.raises(
        ArgumentValueError, match=r"BertModel cannot be run packed: encoder\.layer\.1\.output is of class"
    ):
        sentcore.accelerate(restored)


# ---- copies, and back -----------------------------------------------------------------------------------------------


def test_names_copies_pickles_and_the_way_back():
    ours, theirs = pair("bert")
    batch = ragged()
    assert list(ours.state_dict()) == list(theirs.state_dict()) and type(ours).__name__ == "BertModel"
    assert isinstance(ours, hf.BertModel)
    with torch.no_grad():
        expected = ours(**batch)[0]
        for copied in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
            assert torch.equal(copied(**batch)[0], expected)
            copied.encoder.layer[0].output.dense.weight.zero_()
            assert not torch.equal(copied(**batch)[0], expected)  # it stands on its own weights
        assert torch.equal(ours(**batch)[0], expected)
        sentcore.restore(ours)
        assert type(ours) is type(theirs) and ours.__dict__.keys() == theirs.__dict__.keys()
        assert torch.equal(ours(**batch)[0], theirs(**batch)[0])


def test_twice_is_once(tmp_path):
    ours, _ = pair("bert")
    assert sentcore.accelerate(ours) is ours
    ours.save_pretrained(tmp_path)
    again = hf.AutoModel.from_pretrained(tmp_path)
    assert again.config.architectures == ["BertModel"]


def test_a_sentence_transformer(minilm_folder, texts):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sentence_transformers.SentenceTransformer(str(minilm_folder), device="cpu")
    expected = model.encode(texts)
    sentcore.accelerate(model)
    assert abs(model.encode(texts) - expected).max() < 2e-6
    sentcore.restore(model)
    assert (model.encode(texts) == expected).all()


# ---- refusals ---------------------------------------------------------------------------------------------------------


def test_what_is_refused_leaves_the_model_untouched():
    with pytest.raises(ArgumentTypeError, match="model is of class Linear and holds no encoder"):
        sentcore.accelerate(nn.Linear(2, 2))
    with pytest.raises(ArgumentTypeError, match="model is of type str"):
        sentcore.accelerate("bert")
    with pytest.raises(ArgumentValueError, match="nothing accelerated"):
        sentcore.restore(nn.Linear(2, 2))
    decoder = hf.BertModel(hf.BertConfig(**SMALL, is_decoder=True))
    with pytest.raises(ArgumentValueError, match="BertModel is set up as a decoder"):
        sentcore.accelerate(decoder)
    odd = hf.BertModel(hf.BertConfig(**SMALL, hidden_act="silu"))
    good = make_model("bert")
    with pytest.raises(CheckpointError, match="hidden_act is 'silu'"):
        sentcore.accelerate(nn.ModuleList([good, odd]))
    assert type(good) is hf.BertModel and type(good.encoder.layer[0]).__mro__[0].__mro__[1] is not object
    good.encoder.layer[0].output.dropout.p = 0.5
    with pytest.raises(ArgumentValueError, match=r"encoder\.layer\.0\.output\.dropout drops with 0\.5"):
        sentcore.accelerate(good)
