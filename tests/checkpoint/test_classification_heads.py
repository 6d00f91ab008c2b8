"""Every family's classification head against transformers' own class with random weights: logits, gradients, saved folders."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from compare import SAME_FEATURES_FLOAT32
from families import FAMILIES, SIZES, ragged, randomize, save
from folders import change
from sentcore import PackedBatch
from sentcore.checkpoint import load_cross_encoder, save_cross_encoder
from sentcore.checkpoint.build import build_classifier
from sentcore.errors import CheckpointError, SentcoreError

LENGTHS = (3, 17, 1, 64, 40)
LARGEST = 1e-5  # of logits around 1, float32
GRADIENTS = 1e-4  # relative to the largest of each parameter

VARIANTS = {
    "modernbert-mean": ("modernbert", {"classifier_pooling": "mean", "classifier_activation": "gelu_new"}),
    "modernbert-biases-head": ("modernbert-biases", {"classifier_bias": True, "classifier_pooling": "mean"}),
}
NAMES = [*FAMILIES, *VARIANTS]


def make(name, labels, seed=0):
    """transformers' model, eager, in eval mode, its weights random."""
    family, settings = VARIANTS.get(name, (name, {}))
    torch.manual_seed(seed)
    config = FAMILIES[family](SIZES["small"])
    for key, value in {**settings, "num_labels": labels}.items():
        setattr(config, key, value)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
    randomize(model)
    return model


def inputs(model, seed=1):
    """ids, mask and token types: the second half of every row is the second text, where the model tells them apart."""
    ids, mask = ragged(model, LENGTHS, seed)
    if not (getattr(model.config, "type_vocab_size", 0) or 0) > 1:
        return ids, mask, None
    halves = mask.sum(1, keepdim=True) // 2
    return ids, mask, ((torch.arange(ids.shape[1]) >= halves) & mask.bool()).long()


def theirs_of(model, ids, mask, types):
    return model(input_ids=ids, attention_mask=mask, **({} if types is None else {"token_type_ids": types})).logits


def packed(ids, mask, types, device="cpu"):
    batch = PackedBatch.from_sequences([row[real.bool()] for row, real in zip(ids, mask, strict=True)])
    if types is None:
        return batch.to(device)
    return PackedBatch(
        token_ids=batch.token_ids,
        position_ids=batch.position_ids,
        token_type_ids=types[mask.bool()],
        cu_seqlens=batch.cu_seqlens,
        max_seqlen=batch.max_seqlen,
    ).to(device)


def ours_of(folder, backend="auto", device="cpu"):
    return build_classifier(load_cross_encoder(folder), backend, torch.device(device), torch.float32).eval()


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_transformers(tmp_path, name, labels, backend, device):
    model = make(name, labels)
    ours = ours_of(save(model, tmp_path), backend, device)
    given = inputs(model)
    with torch.inference_mode():
        expected, found = theirs_of(model, *given), ours(packed(*given, device)).cpu()
    assert found.shape == expected.shape == (len(LENGTHS), labels) and found.dtype == torch.float32
    assert (found - expected).abs().max() <= LARGEST * max(1.0, float(expected.abs().max()))
    assert expected.std(0).min() > 1e-2, "logits that hardly differ compare nothing"


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_transformers(tmp_path, name, device):
    model = make(name, 3)
    ours = ours_of(save(model, tmp_path), device=device)
    given = inputs(model)
    weights = torch.randn(len(LENGTHS), 3)
    (theirs_of(model, *given) * weights).sum().backward()
    (ours(packed(*given, device)) * weights.to(device)).sum().backward()
    named = dict(model.named_parameters())
    dense = next(
        named[key + ".weight"]
        for key in (
            f"{model.base_model_prefix}.pooler.dense",
            f"{model.base_model_prefix}.pooler",
            "classifier.dense",
            "pre_classifier",
            "head.dense",
        )
        if key + ".weight" in named
    )
    words = model.get_input_embeddings().weight
    for mine, their in ((ours.head.dense.weight, dense), (ours.encoder.embeddings.word_embeddings.weight, words)):
        assert (mine.grad.cpu() - their.grad).abs().max() <= GRADIENTS * their.grad.abs().max()
    assert all(parameter.grad is not None for parameter in ours.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_folder_is_read_by_transformers(tmp_path, name):
    model = make(name, 3)
    checkpoint = load_cross_encoder(save(model, tmp_path / "theirs"))
    save_cross_encoder(
        tmp_path / "ours",
        checkpoint,
        checkpoint.state_dict,
        checkpoint.head_state,
        max_length=20,
        activation="torch.nn.modules.linear.Identity",
    )
    read, report = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "ours", attn_implementation="eager", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    given = inputs(model)
    with torch.inference_mode():
        assert torch.equal(theirs_of(read.eval(), *given), theirs_of(model, *given))
        torch.testing.assert_close(
            ours_of(tmp_path / "ours")(packed(*given)),
            ours_of(tmp_path / "theirs")(packed(*given)),
            rtol=0,
            atol=SAME_FEATURES_FLOAT32,
        )


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert", "albert"])
def test_dropout_acts_in_training_alone(tmp_path, name):
    model = make(name, 1)
    save(model, tmp_path)
    field = "classifier_dropout_prob" if name == "albert" else "classifier_dropout"
    change(tmp_path / "config.json", **{field: 0.5})
    ours = ours_of(tmp_path)
    x = torch.randn(8, ours.head.spec.hidden_size)
    assert torch.equal(ours.head(x), ours.head(x))
    ours.head.train()
    assert not torch.equal(ours.head(x), ours.head(x))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_without_a_head_names_what_is_missing(tmp_path, name):
    model = make(name, 1)
    save(model.base_model, tmp_path)
    with pytest.raises(CheckpointError, match=r"lacks .*classifier.*no cross-encoder.*SentenceEncoder"):
        load_cross_encoder(tmp_path)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda t: t.pop("classifier.bias"), r"lacks classifier\.bias"),
        (lambda t: t.pop("bert.pooler.dense.weight"), r"lacks bert\.pooler\.dense\.weight"),
        (lambda t: t.update({"classifier.weight": torch.ones(3, 48)}), r"classifier\.weight has shape \[3, 48\].*\[1, 48\]"),
        (lambda t: t["classifier.weight"].fill_(float("nan")), r"classifier\.weight holds 48 NaN"),
    ],
)  # fmt: skip
def test_damaged_heads_are_named(tmp_path, edit, says):
    save(make("bert", 1), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    edit(tensors)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(SentcoreError, match=says):
        load_cross_encoder(tmp_path)


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("bert", {"architectures": ["BertForMultipleChoice"]}, "BertForMultipleChoice.*ForSequenceClassification"),
        ("modernbert", {"architectures": ["ModernBertForTokenClassification"]}, "ModernBertForTokenClassification"),
        ("modernbert", {"classifier_pooling": "max"}, "classifier_pooling is 'max'; accepted: cls, mean"),
        ("modernbert", {"classifier_activation": "mish"}, "classifier_activation is 'mish'"),
        ("modernbert", {"classifier_bias": True}, r"lacks head\.dense\.bias"),
        ("modernbert-biases", {"norm_bias": False}, r"holds head\.norm\.bias, which config.json says"),
        ("bert", {"classifier_dropout": 1.5}, "classifier_dropout is 1.5"),
        ("bert", {"id2label": {"0": "a", "2": "b"}}, "id2label has the keys"),
        ("bert", {"position_embedding_type": "alibi", "feed_forward_type": "geglu"}, "jina_bert.*head is not known"),
    ],
)
def test_what_a_head_cannot_be_is_refused(tmp_path, name, values, says):
    save(make(name, 1), tmp_path)
    change(tmp_path / "config.json", **values)
    with pytest.raises(CheckpointError, match=says):
        load_cross_encoder(tmp_path)


def test_a_sentence_without_tokens_has_no_score(tmp_path):
    ours = ours_of(save(make("bert", 1), tmp_path))
    with pytest.raises(ValueError, match="sentence 1 of the batch has no tokens"):
        ours(PackedBatch.from_sequences([[5, 6], []]))
