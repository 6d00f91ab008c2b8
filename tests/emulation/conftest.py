"""The library of emulated kernels, built once and loaded once."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest
import torch

from emulation import emulated


@pytest.fixture(scope="session")
def library() -> Path:
    """The emulated library's path."""
    given = os.environ.get(emulated.LIBRARY_VARIABLE)
    if given:
        return Path(given)
    if reason := emulated.why_not():
        pytest.skip(reason)
    return emulated.build("plain")


@pytest.fixture(scope="session")
def ops(library: Path):
    """The ops, run by the emulated CUDA kernels on CPU tensors."""
    emulated.declare()
    torch.ops.load_library(str(library))
    return torch.ops.sentcore_emulated


@pytest.fixture(scope="session")
def gpu(library: Path) -> ctypes.CDLL:
    """The kernels of gpu_kernels.cu."""
    return ctypes.CDLL(str(library))


@pytest.fixture(autouse=True)
def _first_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(emulated.SEED_VARIABLE, raising=False)
