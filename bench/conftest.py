"""Options and fixtures of the benchmarks: which texts, how many threads, and what the results say of the machine."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

import sentcore

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "How do I return an item that I bought last week?",
    "我爱北京天安门。",
    "如何申请退款？我上周购买的商品有质量问题，需要更换或者退货。",
    "A library for numerical computing with arrays, linear algebra, random numbers and Fourier transforms.",
    "Short.",
]


def pytest_addoption(parser):
    group = parser.getgroup("sentcore")
    group.addoption("--texts", action="append", default=[], help="lines, or jsonl(.gz) with title and body; repeatable")
    group.addoption("--num-texts", type=int, default=400, help="how many texts are embedded")
    group.addoption("--threads", type=int, default=2, help="threads torch may use")


def read_texts(path: Path) -> list[str]:
    """Texts of a file: lines, or JSON objects whose text fields are joined, a text per language."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        if ".jsonl" not in path.name:
            return [line.rstrip("\n") for line in lines]
        rows = [json.loads(line) for line in lines]
    texts = []
    for row in rows:
        for title, body in (("title", "body"), ("zh_title", "zh_body"), ("en_title", "en_body")):
            if title in row:
                texts.append(" ".join([row[title], *row[body]]))
    return texts


@pytest.fixture(scope="session")
def texts(request) -> list[str]:
    wanted = request.config.getoption("--num-texts")
    files = [read_texts(Path(name)) for name in request.config.getoption("--texts")]
    if not files:
        files = [[" ".join(SENTENCES[: i % 5 + 1]) + f" {i}" for i in range(wanted)]]
    share = -(-wanted // len(files))
    # Every n-th text of each file, so that a sorted file gives all its sizes.
    chosen = [text for file in files for text in file[:: max(1, len(file) // share)][:share]]
    return chosen[:wanted]


@pytest.fixture(scope="session", autouse=True)
def threads(request) -> int:
    torch.set_num_threads(request.config.getoption("--threads"))
    return torch.get_num_threads()


def pytest_benchmark_update_machine_info(config, machine_info):
    import importlib.metadata as metadata

    machine_info["threads"] = config.getoption("--threads")
    machine_info["versions"] = {
        name: metadata.version(name)
        for name in ("torch", "transformers", "sentence-transformers", "tokenizers", "numpy")
    } | {"sentcore": sentcore.__version__}
