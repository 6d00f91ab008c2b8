"""Checkpoints under their publishers' names, against an independent padded model; and what is refused, by its message."""

from __future__ import annotations

import json

import pytest
import torch
import transformers as hf
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

import hub_models
from families import gte_config, make_model, save
from folders import change, make_bert_folder, write
from hub_models import VOCAB, HubModel, jina, new, nomic
from sentcore import Encoder, PackedBatch, SentenceEncoder
from sentcore.checkpoint import load_checkpoint
from sentcore.errors import CheckpointError

LENGTHS = (1, 2, 17, 200, 64, 3, 130)
LARGEST = 1e-5  # relative to features' size, float32, over all layers
MODELS = {
    "nomic": lambda: nomic(),
    "nomic, 3 heads of 32": lambda: nomic(heads=3, head_size=32, inner=64),
    "nomic, biases": lambda: nomic(biases=True, base=10_000.0),
    "new, ntk": lambda: new(),
    "new, ntk 8, 3 heads": lambda: new(heads=3, factor=8.0),
    "new, plain": lambda: new(factor=None),
    "new, no types": lambda: new(types=0, factor=None),
    "jina, 3 heads": lambda: jina(heads=3),
    "jina, 4 heads": lambda: jina(heads=4),
    "jina, 6 heads": lambda: jina(heads=6),
    "jina, 12 heads of 8": lambda: jina(heads=12, head_size=8),
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(11)


def ragged():
    ids, mask = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.long), torch.zeros(len(LENGTHS), max(LENGTHS))
    for row, length in enumerate(LENGTHS):
        ids[row, :length] = torch.randint(5, VOCAB, (length,))
        mask[row, :length] = 1
    return ids, mask.long()


def encoder_of(folder, backend="auto"):
    checkpoint = load_checkpoint(folder)
    encoder = Encoder(checkpoint.config, backend)
    encoder.load_state_dict(checkpoint.state_dict)
    return encoder.eval()


def packed(ids, mask):
    return PackedBatch.from_sequences([row[real.bool()] for row, real in zip(ids, mask, strict=True)])


def error(found, expected):
    return float((found - expected).abs().max()) / max(1.0, float(expected.abs().max()))


def check(model: HubModel, folder, backend="auto"):
    encoder = encoder_of(folder, backend)
    ids, mask = ragged()
    batch = packed(ids, mask)
    with torch.inference_mode():
        expected = model.forward(ids, mask)
        found = encoder.hidden_states(batch)
        assert len(found) == len(expected)
        for layer, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert error(a, b[mask.bool()]) <= LARGEST, f"hidden state {layer}"
        assert error(encoder(batch), expected[-1][mask.bool()]) <= LARGEST
        assert error(encoder(ids, mask)[mask.bool()], expected[-1][mask.bool()]) <= LARGEST
        assert error(encoder.encode_rows(batch, batch.cu_seqlens[:-1].long()), expected[-1][:, 0]) <= LARGEST


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("name", MODELS)
def test_every_hidden_state(tmp_path, name, backend):
    model = MODELS[name]()
    check(model, model.save(tmp_path), backend)


@pytest.mark.parametrize(("make", "prefix"), [(nomic, "nomic_bert."), (nomic, "bert."), (new, "new."), (jina, "bert.")])
def test_a_prefix_before_every_name(tmp_path, make, prefix):
    model = make()
    check(model, model.save(tmp_path, prefix))


def test_the_old_names_of_a_layer_norm(tmp_path):
    def old(name):
        if "layernorm" not in name.lower():
            return name
        return name.removesuffix(".weight").removesuffix(".bias") + (".gamma" if name.endswith("weight") else ".beta")

    model = jina()
    check(model, model.save(tmp_path, rename=old))


# ---- the references themselves ------------------------------------------------------------------------------------


def theirs(folder, config):
    """transformers' hidden states of a folder's tensors under a config of its own."""
    write(folder / "config.json", config.to_dict())
    model, loading = hf.AutoModel.from_pretrained(folder, attn_implementation="eager", output_loading_info=True)
    assert not [name for name in loading["missing_keys"] if "pooler" not in name]
    ids, mask = ragged()
    with torch.inference_mode():
        out = model.eval()(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    return ids, mask, [*out.hidden_states[:-1], out.last_hidden_state]


def test_the_nomic_reference_is_transformers(tmp_path):
    model = nomic()
    config = hf.NomicBertConfig(
        hidden_size=64,
        num_attention_heads=4,
        num_hidden_layers=hub_models.LAYERS,
        intermediate_size=96,
        vocab_size=VOCAB,
        max_position_embeddings=512,
        layer_norm_eps=1e-4,
    )
    ids, mask, expected = theirs(model.save(tmp_path), config)
    for a, b in zip(model.forward(ids, mask), expected, strict=True):
        assert error(a[mask.bool()], b[mask.bool()]) <= LARGEST


def test_the_new_reference_is_transformers(tmp_path):
    model = new(factor=None)
    config = gte_config(
        hidden_size=64,
        num_attention_heads=4,
        num_hidden_layers=hub_models.LAYERS,
        intermediate_size=96,
        vocab_size=VOCAB,
        max_position_embeddings=512,
        layer_norm_eps=1e-4,
        pad_token_id=0,
    )
    ids, mask, expected = theirs(model.save(tmp_path), config)
    for a, b in zip(model.forward(ids, mask), expected, strict=True):
        assert error(a[mask.bool()], b[mask.bool()]) <= LARGEST


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8, 12, 16, 20])
def test_the_slopes_are_blooms(heads):
    alibi = build_alibi_tensor(torch.ones(1, 3), heads, torch.float32)  # [N, 1, S], slope * position
    torch.testing.assert_close(torch.tensor(hub_models.slopes(heads)), alibi[:, 0, 1])


# ---- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "values", "said"),
    [
        (nomic, {"rotary_emb_interleaved": True}, "rotary_emb_interleaved is True; accepted: False"),
        (nomic, {"prenorm": True}, "prenorm is True; accepted: False"),
        (nomic, {"num_experts": 8, "moe_every_n_layers": 2}, "(num_experts|moe_every_n_layers) is .; accepted: 0"),
        (nomic, {"num_experts": 8}, "num_experts is 8; accepted: 0"),
        (nomic, {"use_rms_norm": True}, "use_rms_norm is True; accepted: False"),
        (nomic, {"causal": True}, "causal is True; accepted: False"),
        (nomic, {"parallel_block": True}, "parallel_block is True; accepted: False"),
        (nomic, {"rotary_scaling_factor": 2}, "rotary_scaling_factor is 2; accepted: 0"),
        (nomic, {"rotary_emb_fraction": 0.5}, "rotary_emb_fraction is 0.5; accepted: 1.0"),
        (nomic, {"activation_function": "geglu"}, "activation_function is 'geglu'; accepted: 'swiglu'"),
        (new, {"logn_attention_scale": True}, "logn_attention_scale is True; accepted: False"),
        (new, {"layer_norm_type": "rms_norm"}, "layer_norm_type is 'rms_norm'; accepted: 'layer_norm'"),
        (new, {"position_embedding_type": "absolute"}, "position_embedding_type is 'absolute'; accepted: 'rope'"),
        (new, {"rope_scaling": {"type": "ntk", "factor": 2, "mixed_b": 0.4}}, "rope type is 'ntk' with .*mixed_b"),
        (new, {"rope_scaling": {"type": "linear", "factor": 2}}, "rope type is 'linear'"),
        (new, {"rope_scaling": {"type": "ntk", "factor": 0.5}}, "rope factor is 0.5; accepted: at least 1"),
        (new, {"hidden_act": "relu"}, "hidden_act is 'relu'; accepted: gelu, silu"),
        (jina, {"feed_forward_type": "reglu"}, "feed_forward_type is 'reglu'; accepted: 'geglu'"),
        (jina, {"feed_forward_type": None}, "feed_forward_type is 'original'; accepted: 'geglu'"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_field_that_computes_something_else(tmp_path, make, values, said):
    folder = make().save(tmp_path)
    change(folder / "config.json", **values)
    with pytest.raises(CheckpointError, match=rf"config\.json: {said}"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        (
            "roberta",
            {"position_embedding_type": "relative_key_query"},
            "position_embedding_type is 'relative_key_query'",
        ),
        ("electra", {"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ("albert", {"inner_group_num": 2}, "inner_group_num is 2; accepted: 1"),
        ("bert", {"is_decoder": True}, "is_decoder is true; accepted: false"),
        ("bert", {"pruned_heads": {"0": [1]}}, "pruned_heads is .*accepted: none"),
        ("bert", {"hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu'"),
        ("gte", {"head_dim": 32}, "head_dim is 32; accepted: 16"),
        ("mpnet", {"relative_attention_num_buckets": 64}, "relative_attention_num_buckets is 64; accepted: 32"),
        ("mpnet", {"pad_token_id": 0}, "pad_token_id is 0; accepted: 1"),
        ("modernbert", {"rope_scaling": {"type": "ntk", "factor": 2.0}}, "rope type is 'ntk'"),
        ("nomic_bert", {"rope_parameters": {"rope_type": "ntk", "factor": 2.0}}, "rope type is 'ntk'"),
        ("nomic_bert", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope type is 'yarn'"),
        ("nomic_bert", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5; accepted: 1"),
        ("modernbert", {"layer_types": ["chunked_attention"] * 3}, "layer_types holds 'chunked_attention'"),
        ("modernbert", {"hidden_activation": "gelu_new"}, "hidden_activation is 'gelu_new'"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_field_of_transformers_that_computes_something_else(tmp_path, name, values, said):
    folder = save(make_model(name), tmp_path)
    load_checkpoint(folder)
    change(folder / "config.json", **values)
    with pytest.raises(CheckpointError, match=rf"config\.json: {said}"):
        load_checkpoint(folder)


def test_a_field_that_changes_no_value_is_read_over(tmp_path):
    folder = save(make_model("electra"), tmp_path)
    changes_nothing = {
        "chunk_size_feed_forward": 7,
        "use_cache": False,
        "summary_type": "cls_index",
        "pruned_heads": {},
    }
    config = load_checkpoint(folder).config
    change(folder / "config.json", **changes_nothing, classifier_dropout=0.5)
    assert load_checkpoint(folder).config == config


def test_the_top_rope_theta_is_not_modernberts(tmp_path):
    folder = save(make_model("modernbert"), tmp_path)
    values = json.loads((folder / "config.json").read_text())
    del values["rope_parameters"]
    write(folder / "config.json", values | {"rope_theta": 5.0, "global_rope_theta": 8e4, "local_rope_theta": 7e3})
    config = load_checkpoint(folder).config
    theirs = hf.AutoConfig.from_pretrained(folder).rope_parameters
    assert (config.rope_theta, config.local_rope_theta) == (8e4, 7e3)
    assert (config.rope_theta, config.local_rope_theta) == tuple(
        theirs[kind]["rope_theta"] for kind in ("full_attention", "sliding_attention")
    )


@pytest.mark.parametrize("model_type", ["deberta", "deberta-v2", "xlm-roberta-xl", "qwen2", "t5", None])
def test_another_architecture(tmp_path, model_type):
    folder = save(make_model("bert"), tmp_path)
    change(folder / "config.json", model_type=model_type)
    with pytest.raises(CheckpointError, match=f"model_type is {model_type!r}; accepted: bert, .*refused"):
        load_checkpoint(folder)


@pytest.mark.parametrize("beside", [True, False])
def test_an_adapter(tmp_path, beside):
    folder = make_bert_folder(tmp_path)
    write(folder / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "some/base"})
    if not beside:
        (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
        (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: .*LORA.*'some/base'.*merge_and_unload"):
        SentenceEncoder(folder)
