"""SentenceEncoder against sentence-transformers on the same folders: every option of encode."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compare import SAME_FEATURES_FLOAT32
from folders import make_bert_folder
from sentcore import SentenceEncoder
from sentcore.errors import ArgumentTypeError, ArgumentValueError

SENTENCES = ["the cat sat on the dogs", "cat", "", "我爱北京天安门 the dog", "a b c d e f g " * 9, "slowly"]


@pytest.fixture
def both(tmp_path, device):
    """Ours on the device, theirs on the CPU."""

    def build(**settings):
        from sentence_transformers import SentenceTransformer

        folder = make_bert_folder(tmp_path / "model", **settings)
        return SentenceEncoder(folder, device=device), SentenceTransformer(str(folder), device="cpu")

    return build


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_minilm_equals_sentence_transformers(backend, sentence_transformer, texts):
    ours = SentenceEncoder("minilm", device="cpu", backend=backend).encode(texts)
    theirs = sentence_transformer.encode(texts)
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert np.abs(ours - theirs).max() <= SAME_FEATURES_FLOAT32


@pytest.mark.parametrize("budget", [1, 100, 10**9])
def test_any_batch_size_gives_the_same(minilm, texts, budget):
    np.testing.assert_allclose(
        minilm.encode(texts, batch_tokens=budget), minilm.encode(texts), atol=SAME_FEATURES_FLOAT32
    )


def test_bfloat16_is_close(minilm, texts):
    half = SentenceEncoder("minilm", device="cpu", dtype="bfloat16").encode(texts)
    assert half.dtype == np.float32
    assert (half * minilm.encode(texts)).sum(1).min() > 0.999


POOLING = [
    {"pooling_mode_cls_token": True},
    {"pooling_mode_max_tokens": True},
    {"pooling_mode_mean_tokens": True},
    {"pooling_mode_mean_sqrt_len_tokens": True},
    {"pooling_mode_weightedmean_tokens": True},
    {"pooling_mode_lasttoken": True},
    {"pooling_mode_lasttoken": True, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
    {},
]


@pytest.mark.parametrize("generation", ["first", "second", "third"])
@pytest.mark.parametrize("pooling", POOLING, ids=lambda p: "+".join(p) or "none")
def test_pooling_modes_in_every_generation(both, pooling, generation):
    ours, theirs = both(pooling={"word_embedding_dimension": 32, **pooling}, generation=generation)
    expected = theirs.encode(SENTENCES)
    np.testing.assert_allclose(ours.encode(SENTENCES), expected, atol=2e-5)
    assert ours.get_sentence_embedding_dimension() == expected.shape[1]


@pytest.mark.parametrize("mode", ["cls", "mean", "weightedmean", ["mean", "max"]])
def test_new_pooling_config(both, mode):
    ours, theirs = both(pooling={"embedding_dimension": 32, "pooling_mode": mode}, generation="third")
    np.testing.assert_allclose(ours.encode(SENTENCES), theirs.encode(SENTENCES), atol=2e-5)


@pytest.mark.parametrize(
    "activation",
    ["torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.GELU"],
)
def test_dense_and_normalize(both, activation):
    ours, theirs = both(dense=(20, activation), normalize=True)
    np.testing.assert_allclose(ours.encode(SENTENCES), theirs.encode(SENTENCES), atol=2e-5)


def test_bare_checkpoint_is_mean_pooled(both):
    ours, theirs = both(generation=None)
    np.testing.assert_allclose(ours.encode(SENTENCES), theirs.encode(SENTENCES), atol=2e-5)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize(
    "mode", ["pooling_mode_mean_tokens", "pooling_mode_cls_token", "pooling_mode_weightedmean_tokens"]
)
def test_prompts(both, include, mode):
    pooling = {"word_embedding_dimension": 32, mode: True, "include_prompt": include}
    ours, theirs = both(pooling=pooling, prompts={"query": "the cat: ", "empty": ""})
    sentences = [s for s in SENTENCES if s]
    for options in ({"prompt_name": "query"}, {"prompt": "sat on "}, {"prompt_name": "empty"}, {}):
        np.testing.assert_allclose(
            ours.encode(sentences, **options), theirs.encode(sentences, **options), atol=2e-5, err_msg=str(options)
        )


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_precisions(minilm, sentence_transformer, texts, precision):
    ours = minilm.encode(texts, precision=precision)
    theirs = sentence_transformer.encode(texts, precision=precision)
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    # A float32 rounding beside the edge of a step may fall to either side.
    assert (ours != theirs).mean() < 0.001


@pytest.mark.parametrize("normalize", [True, False])
def test_truncate_dim_comes_before_normalize(both, normalize):
    ours, theirs = both()
    options = {"truncate_dim": 8, "normalize_embeddings": normalize}
    np.testing.assert_allclose(ours.encode(SENTENCES, **options), theirs.encode(SENTENCES, **options), atol=2e-5)


def test_token_embeddings_and_everything(minilm, sentence_transformer, texts):
    ours = minilm.encode(texts, output_value="token_embeddings")
    theirs = sentence_transformer.encode(texts, output_value="token_embeddings")
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape
        torch.testing.assert_close(mine, other, atol=2e-5, rtol=1e-4)
    everything = minilm.encode(texts, output_value=None)
    rows = minilm.encode(texts)
    for row, item in zip(rows, everything, strict=True):
        np.testing.assert_allclose(item["sentence_embedding"], row, atol=SAME_FEATURES_FLOAT32)
        assert len(item["input_ids"]) == len(item["token_embeddings"])
    assert minilm.encode("one", output_value="token_embeddings").shape[1] == 384


def test_what_comes_back(minilm):
    assert minilm.encode("one").shape == (384,)
    assert isinstance(minilm.encode(["one"], convert_to_tensor=True), torch.Tensor)
    listed = minilm.encode(["one", "two"], convert_to_numpy=False)
    assert isinstance(listed, list) and isinstance(listed[0], torch.Tensor)
    assert minilm.encode([]).shape == (0, 384)
    assert minilm.encode(text for text in ("a", "b")).shape == (2, 384)
    assert minilm.encode(np.array(["a", "b"])).shape == (2, 384)
    before = minilm.training
    minilm.encode("x")
    assert minilm.training == before


def test_encode_iter_gives_the_same_rows_in_order(minilm, texts):
    blocks = list(minilm.encode_iter(iter(texts), window=7))
    assert np.concatenate([index for index, _ in blocks]).tolist() == list(range(len(texts)))
    rows = np.concatenate([rows for _, rows in blocks])
    np.testing.assert_allclose(rows, minilm.encode(texts), atol=SAME_FEATURES_FLOAT32)
    assert all(len(index) <= 7 for index, _ in blocks)


def test_encode_iter_gives_what_came_before_a_bad_text(minilm):
    blocks, texts = [], ["a", "b", "c", None]
    with pytest.raises(ArgumentTypeError, match=r"sentences\[3\] is None"):
        for index, _ in minilm.encode_iter(texts, window=2):
            blocks.extend(index)
    assert blocks == [0, 1]


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarity(both, name):
    ours, theirs = both()
    ours.similarity_fn_name = theirs.similarity_fn_name = name
    rows = ours.encode(SENTENCES)
    torch.testing.assert_close(ours.similarity(rows, rows[:2]), theirs.similarity(rows, rows[:2]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        ours.similarity_pairwise(rows, rows[::-1].copy()),
        theirs.similarity_pairwise(rows, rows[::-1].copy()),
        atol=1e-4,
        rtol=1e-4,
    )


def test_save_pretrained_is_read_by_sentence_transformers(both, tmp_path):
    from sentence_transformers import SentenceTransformer

    ours, _ = both(dense=(20, "torch.nn.modules.activation.Tanh"), normalize=True, prompts={"q": "the "})
    ours.save_pretrained(tmp_path / "saved")
    rows = ours.encode(SENTENCES)
    again = SentenceEncoder(tmp_path / "saved", device=ours.device)
    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_array_equal(again.encode(SENTENCES), rows)
    np.testing.assert_allclose(theirs.encode(SENTENCES), rows, atol=2e-5)
    assert again.prompts == {"q": "the "} and again.max_seq_length == ours.max_seq_length
    assert not list((tmp_path / "saved").glob("**/*.partial"))


def test_trains_as_a_module(both):
    from sentcore.inputs.packing import pack_batch

    ours, _ = both()
    ours.train()
    batch = pack_batch(ours.tokenizer(SENTENCES), np.arange(len(SENTENCES)), device=ours.device)
    features = ours(batch)
    assert features.shape == (len(SENTENCES), 32)
    features.sum().backward()
    assert ours.model.encoder.layers[0].attention.query.weight.grad.abs().sum() > 0


def test_not_a_number_is_reported(both):
    ours, _ = both()
    with torch.no_grad():
        ours.model.encoder.layers[1].feed_forward.down.bias[0] = torch.nan
    with pytest.warns(RuntimeWarning, match="6 of 6 features are NaN or infinite"):
        ours.encode(SENTENCES)


def test_long_texts_are_cut_where_sentence_transformers_cuts(both):
    ours, theirs = both()
    long = ["the cat sat on the dogs " * n for n in (1, 5, 50, 5000)] + ["我爱北京天安门" * 500, "x" * 20000]
    np.testing.assert_allclose(ours.encode(long), theirs.encode(long), atol=2e-5)
    assert ours.max_seq_length == theirs.max_seq_length == 24
    ours.max_seq_length = theirs.max_seq_length = 9
    np.testing.assert_allclose(ours.encode(long), theirs.encode(long), atol=2e-5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"prompt_name": "nope"}, "prompt_name is 'nope'"),
        ({"output_value": "sparse"}, "output_value is 'sparse'"),
        ({"precision": "int4"}, "precision is 'int4'"),
        ({"truncate_dim": 0}, "truncate_dim is 0"),
        ({"batch_tokens": 0}, "batch_tokens is 0"),
        ({"batch_tokens": 2.5}, "batch_tokens is 2.5"),
        ({"prompt": 3}, "prompt is 3"),
        ({"device": "gpu:0"}, "device is 'gpu:0'"),
    ],
)
def test_wrong_options_are_named(minilm, options, says):
    with pytest.raises((ArgumentValueError, ArgumentTypeError), match=says):
        minilm.encode(["a"], **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dtype": "int4"}, "dtype is 'int4'"),
        ({"dtype": "float16"}, "dtype is 'float16' on a CPU"),
        ({"backend": "jax"}, "backend is 'jax'"),
        ({"max_length": 9999}, "max_length is 9999; accepted: 3 to 512"),
        ({"batch_invariant": True, "backend": "reference"}, "batch_invariant is True; .* backend is 'reference'"),
    ],
)
def test_wrong_settings_are_named(options, says):
    with pytest.raises(ArgumentValueError, match=says):
        SentenceEncoder("minilm", device="cpu", **options)
