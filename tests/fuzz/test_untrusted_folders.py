"""Any change to a model folder or an input file: it loads, or is a SentcoreError. `campaign.py` is the long form of this."""

from __future__ import annotations

import json
import shutil
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from folders import make_bert_folder
from fuzz.cases import input_case, model_case, use_model
from fuzz.seeds import INPUTS, MODELS, TINY
from fuzz.values import NAMES
from sentcore.errors import SentcoreError

FEW = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
CHOSEN = ("sentence-bert", "pickled", "sharded", "cross-encoder", "bge-m3", "modernbert")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    root = tmp_path_factory.mktemp("seeds")
    for name in CHOSEN:
        MODELS[name](root / "models" / name)
    (root / "inputs").mkdir()
    for name, data in INPUTS.items():
        (root / "inputs" / name).write_bytes(data())
    return root


def test_the_seeds_themselves_load(seeds):
    for name in CHOSEN:
        use_model(seeds / "models" / name, name == "cross-encoder")


@settings(FEW, max_examples=150)
@given(number=st.integers(0, 2**32))
def test_changed_folders(seeds, tmp_path_factory, number):
    outcome = model_case(seeds, tmp_path_factory.getbasetemp() / "case", Random(number))
    assert outcome.kind != "fault", outcome


@settings(FEW, max_examples=150)
@given(number=st.integers(0, 2**32))
def test_changed_input_files(seeds, tmp_path_factory, number):
    outcome = input_case(seeds, tmp_path_factory.getbasetemp() / "case", Random(number))
    assert outcome.kind != "fault", outcome


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()), max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
FILES = (
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer_config.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
)


@settings(FEW, max_examples=200)
@given(file=st.sampled_from(FILES), name=st.sampled_from(NAMES), value=JSON)
def test_any_value_in_any_field(tmp_path_factory, file, name, value):
    base = tmp_path_factory.getbasetemp() / "any-value"
    if not base.exists():
        make_bert_folder(base, dense=(8, "torch.nn.modules.activation.Tanh"), prompts={"query": "the "}, **TINY)
    path, held = base / file, (base / file).read_bytes()
    tree = json.loads(held)
    place = tree[-1] if isinstance(tree, list) else tree
    place[name] = value
    path.write_text(json.dumps(tree))
    try:
        use_model(base, False)
    except SentcoreError:
        pass
    finally:
        path.write_bytes(held)


def test_cases_are_the_same_whenever_they_are_run(seeds, tmp_path):
    assert model_case(seeds, tmp_path / "a", Random(3)) == model_case(seeds, tmp_path / "a", Random(3))
    assert not (tmp_path / "a").exists()
    shutil.rmtree(tmp_path)
