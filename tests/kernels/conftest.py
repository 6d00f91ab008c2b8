"""The GPUs the kernels of csrc's .cu files are tested on: the emulated one always, a real one where there is one."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from devices import real_gpu
from kernels import emulated
from kernels.device import Ops, chosen


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
def emulated_ops(library: Path) -> Ops:
    """The ops, run by the emulated CUDA kernels."""
    emulated.declare()
    torch.ops.load_library(str(library))
    return Ops("sentcore_emulated", "cpu", ctypes.CDLL(str(library)))


@pytest.fixture(
    scope="session", params=["emulated", *([] if os.environ.get(emulated.LIBRARY_VARIABLE) else real_gpu())]
)
def ops(request: pytest.FixtureRequest) -> Ops:
    """The ops, run by the CUDA kernels on each GPU there is, from CPU tensors to CPU tensors."""
    if request.param == "emulated":
        return request.getfixturevalue("emulated_ops")
    return Ops("sentcore", request.param)


@pytest.fixture(params=["portable", "sm_90a"])
def kernels(request: pytest.FixtureRequest, ops: Ops) -> Iterator[str]:
    """The ops' kernels where there are two: the portable ones, and those of compute capability 9.0."""
    with chosen(ops, request.param):
        yield request.param


@pytest.fixture(scope="session")
def gpu(library: Path) -> ctypes.CDLL:
    """The kernels of gpu_kernels.cu."""
    return ctypes.CDLL(str(library))


@pytest.fixture(autouse=True)
def _first_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(emulated.SEED_VARIABLE, raising=False)
