"""The ops on one of the GPUs, emulated or real, called with CPU tensors so that a test need not know which."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch


class Ops:
    """`torch.ops.<namespace>` whose tensors go to a device and come back.

    A tensor keeps its strides and its offset in a storage of the same size, so that one that is not contiguous, or not
    aligned, is so on the device too.
    """

    def __init__(self, namespace: str, device: str, library: ctypes.CDLL | None = None) -> None:
        self.namespace, self.device, self.library = getattr(torch.ops, namespace), device, library

    def __getattr__(self, name: str):
        op = getattr(self.namespace, name)
        if self.device == "cpu":
            return op

        def call(*args, **kwargs):
            results = op(*map(self._there, args), **{key: self._there(value) for key, value in kwargs.items()})
            return tuple(t.cpu() for t in results) if isinstance(results, tuple | list) else results.cpu()

        return call

    def _there(self, value):
        if not isinstance(value, torch.Tensor):
            return value
        count = value.untyped_storage().nbytes() // value.element_size()
        whole = value.as_strided((count,), (1,), 0).to(self.device)
        return whole.as_strided(value.shape, value.stride(), value.storage_offset())


@contextmanager
def chosen(ops: Ops, mode: str) -> Iterator[None]:
    """Has `ops` take the kernels of `mode`, one of sentcore._kernels.MODES; skips where this GPU has none of that kind."""
    if ops.library is not None:  # the emulated GPU has all
        ops.library.sentcore_choose_kernels({"portable": 0, "measured": 1, "sm_90a": 2}[mode])
        try:
            yield
        finally:
            ops.library.sentcore_choose_kernels(0)
        return
    from sentcore import _kernels, build_info

    built = build_info()
    capable = any(device["capability"] == (9, 0) for device in built["devices"])
    if mode == "sm_90a" and not (built["extension"]["sm_90a"] and capable):
        pytest.skip("the GPU here is none of compute capability 9.0, or its kernels are not built")
    with _kernels.kernels(mode):
        yield
