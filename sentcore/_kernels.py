"""Which CUDA kernels are taken where there are two: the portable ones, or those of compute capability 9.0.

The environment variable SENTCORE_KERNELS, read when sentcore is imported, is
    measured   those of 9.0 where a measurement that came with the package says that they are faster (the default)
    portable   the portable ones everywhere
    sm_90a     those of 9.0 wherever they can run, for tests and benchmarks
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sentcore._extension import build_record, extension
from sentcore.errors import ArgumentValueError

VARIABLE = "SENTCORE_KERNELS"
MODES = ("measured", "portable", "sm_90a")

_mode = "measured"


def choose(mode: str) -> None:
    """Takes `mode`, one of MODES, from the next launch on, in the whole process.

    Raises:
        ArgumentValueError: another word, or a mode that this installation or machine cannot have.
    """
    global _mode
    if mode not in MODES:
        raise ArgumentValueError(
            f"{VARIABLE} is {mode!r}; accepted: {', '.join(MODES)}. Unset it for the default, measured"
        )
    module = extension()
    has_choice = module is not None and hasattr(module, "choose_kernels")
    if mode == "sm_90a" and not (has_choice and module.build_info()["sm_90a"]):
        raise ArgumentValueError(
            f"{VARIABLE} is 'sm_90a', and this installation has no such kernels; accepted: measured, portable. Install "
            "sentcore again where nvcc is found, for all architectures or with 90 in SENTCORE_CUDA_ARCHS"
        )
    if has_choice:
        module.choose_kernels(getattr(module.Kernels, mode))
    _mode = mode


def chosen() -> str:
    """The mode that holds now."""
    return _mode


@contextmanager
def kernels(mode: str) -> Iterator[None]:
    """`mode` inside the block, for the whole process."""
    before = _mode
    choose(mode)
    try:
        yield
    finally:
        choose(before)


def takes(choice: str, x: torch.Tensor, first: int, second: int) -> bool:
    """Whether the kernel of compute capability 9.0 is taken for `choice` of that size, on x's GPU and for its dtype."""
    module = extension()
    if module is None or not hasattr(module, "takes_sm90a"):
        return False
    with torch.cuda.device(x.device):
        dtype = getattr(module.Dtype, str(x.dtype).removeprefix("torch."))
        return module.takes_sm90a(getattr(module.Choice, choice), dtype, first, second)


def rows() -> list[dict[str, Any]]:
    """The measured choices that came with the package."""
    return build_record().get("kernel_choices", [])


def _start() -> None:
    module = extension()
    if module is not None and hasattr(module, "add_kernel_choice"):
        for row in rows():
            choice, dtype = getattr(module.Choice, row["choice"]), getattr(module.Dtype, row["dtype"])
            module.add_kernel_choice(choice, dtype, row["first"], row["second"])
    choose(os.environ.get(VARIABLE, "").strip() or "measured")


_start()
