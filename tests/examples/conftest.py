"""A tiny model that reads the samples of examples/, and the scripts as modules."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from folders import change, make_bert_folder

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DATA = EXAMPLES / "data"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A BERT of random weights whose word pieces are the characters of the samples, and the tokens of the NER sample."""
    text = "".join(file.read_text(encoding="utf-8") for file in DATA.iterdir()).lower()
    characters = sorted(set(text) - set(" \n"))
    tokens = {
        line.split()[0] for line in (DATA / "entities.conll").read_text(encoding="utf-8").lower().split("\n") if line
    }
    words = [*SPECIAL, *characters, *(f"##{character}" for character in characters), *sorted(tokens - set(characters))]
    torch.manual_seed(0)
    folder = make_bert_folder(
        tmp_path_factory.mktemp("models") / "tiny",
        normalize=True,
        vocab_size=len(words),
        max_position_embeddings=130,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    change(folder / "sentence_bert_config.json", max_seq_length=96)
    return folder


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))  # as for a script that is run


@pytest.fixture(scope="session")
def load():
    """An example's name -> its module."""

    def loaded(name):
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return loaded


@pytest.fixture(scope="session")
def run(load):
    """(an example's name, its arguments) -> what its main returns for that command line."""
    return lambda name, *arguments: load(name).main([str(argument) for argument in arguments])
