"""Fixtures for the whole suite: the embedded model, and texts that are as ragged as real ones."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here may depend on a network
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers are the threads

import pytest
import torch

import sentcore
from devices import real_gpu
from sentcore.checkpoint import resolve

TEXTS = [
    "A cat sits on the mat.",
    "我爱北京天安门",
    "",
    "   ",
    "x",
    "Real-time strategy game of ancient warfare, with a long description. " * 40,
    "数据库管理系统，支持事务与并发控制。" * 30,
    "ça va? naïve café — déjà vu",
    "emoji 🙂🚀 and العربية من اليمين إلى اليسار",
    "tabs\tand\nnewlines\r\nand\x00control\x07characters",
    "UPPER lower MiXeD 12345 3.14159 a@b.org",
    "unaffordable electroencephalographically antidisestablishmentarianism",
] + [f"sentence number {i} " * (i % 9 + 1) for i in range(30)]


@pytest.fixture(scope="session")
def minilm_folder():
    return resolve("minilm")


@pytest.fixture(scope="session")
def texts():
    return list(TEXTS)


@pytest.fixture(scope="session")
def minilm():
    return sentcore.SentenceEncoder("minilm", device="cpu")


@pytest.fixture(scope="session")
def sentence_transformer(minilm_folder):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(minilm_folder), device="cpu")


@pytest.fixture(params=["cpu", *real_gpu()])
def device(request):
    """Where ours computes; what it is compared with stays on the CPU unless a test says so."""
    return request.param


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)
