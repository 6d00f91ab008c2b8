"""trace: what it keeps is what transformers computes, in every family, and looking changes nothing."""

from __future__ import annotations

import pytest
import torch

import sentcore
from families import FAMILIES, make_model, save, save_tokenizer
from folders import make_bert_folder
from hub_models import jina
from sentcore.errors import ArgumentTypeError, ArgumentValueError, TruncationWarning

TEXT = "a cat (我爱北京) 12 jumps; over the moon"


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """name -> (transformers' model, ours)."""
    made = {}

    def get(name):
        if name not in made:
            theirs = make_model(name)
            folder = save(theirs, tmp_path_factory.mktemp("trace") / name, tokenizer=True)
            made[name] = theirs, sentcore.SentenceEncoder(folder, device="cpu")
        return made[name]

    return get


def lengths(rows):
    return torch.linalg.vector_norm(rows, dim=-1)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_against_transformers(family, name):
    theirs, ours = family(name)
    traced = sentcore.trace(ours, TEXT)
    norms = []
    for module in theirs.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.register_forward_hook(lambda _, given, out: norms.append((given[0][0], out[0])))
    with torch.no_grad():
        out = theirs(torch.tensor([traced.token_ids]), output_attentions=True, output_hidden_states=True)
    torch.testing.assert_close(torch.stack(traced.hidden_states), torch.cat(out.hidden_states), rtol=1e-4, atol=2e-5)
    maps = torch.stack([layer.attention for layer in traced.layers])
    torch.testing.assert_close(maps, torch.cat(out.attentions), rtol=1e-4, atol=1e-5)
    assert len(traced.norms) == len(norms)
    for mine, (before, after) in zip(traced.norms, norms, strict=True):
        torch.testing.assert_close(
            mine.before, lengths(before), rtol=1e-4, atol=1e-5, msg=lambda m, n=mine: f"{n.name}: {m}"
        )
        torch.testing.assert_close(
            mine.after, lengths(after), rtol=1e-4, atol=1e-5, msg=lambda m, n=mine: f"{n.name}: {m}"
        )


@pytest.mark.parametrize("name", FAMILIES)
def test_the_feature_is_encodes(family, name):
    _, ours = family(name)
    before = torch.from_numpy(ours.encode(TEXT))
    traced = sentcore.trace(ours, TEXT)
    assert (traced.feature - before).abs().max() <= 1e-5
    pooled = traced.pooling["mean"] @ traced.hidden_states[-1]
    assert (pooled - traced.feature).abs().max() <= 1e-5
    # No hook stays behind: the same bits as before.
    assert torch.equal(torch.from_numpy(ours.encode(TEXT)), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in ours.modules())


@pytest.mark.parametrize("name", ["bert", "modernbert", "mpnet"])
def test_queries_and_keys_give_the_attention(family, name):
    _, ours = family(name)
    traced = sentcore.trace(ours, TEXT)
    bias = 0.0
    if name == "mpnet":
        bias = ours.model.encoder.positions._bias(len(traced.tokens)).detach()
    for layer in traced.layers:
        scores = layer.query @ layer.key.transpose(1, 2) / layer.query.shape[2] ** 0.5 + bias
        if layer.sliding:
            places = torch.arange(len(traced.tokens))
            scores[:, (places[:, None] - places).abs() > ours.model.encoder.config.sliding_window] = -torch.inf
        torch.testing.assert_close(layer.attention, scores.softmax(-1), rtol=1e-4, atol=1e-5)


def test_alibi_against_a_model_of_its_own(tmp_path):
    torch.manual_seed(0)
    theirs = jina()
    folder = theirs.save(tmp_path / "jina")
    save_tokenizer(folder, 100, 0, max_length=96)
    ours = sentcore.SentenceEncoder(folder, device="cpu")
    traced = sentcore.trace(ours, TEXT)
    ids = torch.tensor([traced.token_ids])
    states = theirs.forward(ids, torch.ones_like(ids))
    for mine, state in zip(traced.hidden_states, states, strict=True):
        torch.testing.assert_close(mine, state[0], rtol=1e-4, atol=2e-5)
    assert (traced.feature - torch.from_numpy(ours.encode(TEXT))).abs().max() <= 1e-5
    sums = torch.stack([layer.attention.sum(-1) for layer in traced.layers])
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_embeddings_are_the_tables_rows(family):
    theirs, ours = family("bert")
    traced = sentcore.trace(ours, TEXT)
    found, tables = traced.embeddings, theirs.embeddings
    assert torch.equal(found.word, tables.word_embeddings.weight[traced.token_ids].detach())
    assert torch.equal(found.position, tables.position_embeddings.weight[: len(traced.tokens)].detach())
    torch.testing.assert_close(found.sum, found.word + found.position + found.token_type)
    torch.testing.assert_close(found.normed, traced.hidden_states[0])
    rotary = sentcore.trace(family("modernbert")[1], TEXT).embeddings
    assert rotary.position is None and rotary.token_type is None
    small = sentcore.trace(family("albert")[1], TEXT)
    assert small.embeddings.normed.shape[1] == 32 and small.hidden_states[0].shape[1] == 48


@pytest.mark.parametrize(
    "mode", ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", "first_last_avg"]
)
def test_pooling_weights_give_the_feature(tmp_path, mode):
    ours = sentcore.SentenceEncoder(make_bert_folder(tmp_path / "bert", normalize=False), device="cpu", pooling=mode)
    traced = sentcore.trace(ours, "the cat sat on the dog")
    weights = traced.pooling[mode]
    if mode == "max":
        assert weights.min() >= 0 and abs(float(weights.sum()) - 1) < 1e-6
        share = (traced.hidden_states[-1].argmax(0)[:, None] == torch.arange(len(weights))).float().mean(0)
        torch.testing.assert_close(weights, share)
        return
    rows = traced.hidden_states[-1]
    if mode == "first_last_avg":
        rows = (rows + traced.hidden_states[1]) / 2
    torch.testing.assert_close(weights @ rows, traced.feature, rtol=1e-5, atol=1e-5)


def test_minilm_normalized(minilm):
    traced = sentcore.trace(minilm, "A cat sits on the mat.")
    assert traced.tokens[:3] == ["[CLS]", "a", "cat"] == traced.labels[:3]
    assert (traced.feature - torch.from_numpy(minilm.encode("A cat sits on the mat."))).abs().max() <= 1e-5
    assert abs(float(traced.feature.norm()) - 1) < 1e-5
    assert len(traced.layers) == 6 and traced.layers[0].query.shape == (12, 9, 32)


def test_the_first_tokens_alone(family):
    for name in ("bert", "modernbert"):
        _, ours = family(name)
        whole, part = sentcore.trace(ours, TEXT), sentcore.trace(ours, TEXT, max_tokens=7)
        assert part.kept == 7 and len(part.tokens) == len(whole.tokens) > 16
        assert torch.equal(part.layers[1].attention, whole.layers[1].attention[:, :7, :7])
        assert torch.equal(part.layers[2].key, whole.layers[2].key[:, :7])
        assert torch.equal(part.hidden_states[-1], whole.hidden_states[-1][:7])
        assert torch.equal(part.feature, whole.feature) and torch.equal(part.norms[-1].after, whole.norms[-1].after)


def test_prompts_and_cut_texts(tmp_path):
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "include_prompt": False}
    folder = make_bert_folder(tmp_path / "bert", pooling=pooling, prompts={"query": "the dog "}, normalize=True)
    ours = sentcore.SentenceEncoder(folder, device="cpu")
    traced = sentcore.trace(ours, "cat sat", prompt_name="query")
    assert traced.text == "the dog cat sat"
    assert traced.pooling["mean"].tolist() == pytest.approx([0, 0, 0, 1 / 3, 1 / 3, 1 / 3])
    assert (traced.feature - torch.from_numpy(ours.encode("cat sat", prompt_name="query"))).abs().max() <= 1e-5
    with pytest.warns(TruncationWarning, match="longer than 24 tokens"):
        assert sentcore.trace(ours, "cat " * 50).truncated


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_other_dtypes_and_modes(minilm_folder, dtype):
    ours = sentcore.SentenceEncoder(minilm_folder, device="cpu", dtype=dtype)
    traced = sentcore.trace(ours, "A cat sits on the mat.")
    encoded = torch.from_numpy(ours.encode("A cat sits on the mat."))
    assert torch.cosine_similarity(traced.feature, encoded, dim=0) > 0.999
    sums = torch.stack([layer.attention.sum(-1) for layer in traced.layers])
    assert (sums - 1).abs().max() < 0.02


def test_plain_pytorch_and_training_mode(tmp_path):
    folder = make_bert_folder(tmp_path / "bert")
    ours = sentcore.SentenceEncoder(folder, device="cpu", backend="reference").train()
    traced = sentcore.trace(ours, "the cat")
    assert ours.training and ours.model.encoder.layers[0].training
    assert (traced.feature - torch.from_numpy(ours.encode("the cat"))).abs().max() <= 1e-5


def test_labels_of_a_vocabulary_of_bytes(tmp_path):
    from tokenizers import Tokenizer as Rust
    from tokenizers import decoders, models, pre_tokenizers

    from sentcore.inputs.tokenizer import Tokenizer

    pieces = {"h": 0, "i": 1, "Ġ": 2, "æ": 3, "Ī": 4, "ĳ": 5, "æĪĳ": 6, "Ċ": 7}
    rust = Rust(models.BPE(pieces, []))
    rust.pre_tokenizer, rust.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = Tokenizer(rust, 20)
    assert tokenizer.labels([0, 1, 2, 3, 4, 5, 6, 7]) == ["h", "i", "␣", "<E6>", "<88>", "<91>", "我", "⏎"]


def test_bad_arguments(tmp_path, minilm):
    with pytest.raises(ArgumentTypeError, match="model is of type Encoder"):
        sentcore.trace(minilm.model.encoder, "x")
    with pytest.raises(ArgumentTypeError, match="text is 7 of type int"):
        sentcore.trace(minilm, 7)
    with pytest.raises(ArgumentValueError, match="max_tokens is 0"):
        sentcore.trace(minilm, "x", max_tokens=0)
    with pytest.raises(ArgumentValueError, match="prompt_name is 'none'"):
        sentcore.trace(minilm, "x", prompt_name="none")
