"""Out of memory: how it is told from any other error, and a token budget that gives way to it and comes back."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch

# What torch's allocators, CUDA, cuBLAS and C++ beneath them say where they raise no class of its own.
_SAID = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "std::bad_alloc",
    "CUDA out of memory",
    "CUDA error: out of memory",  # page-locked memory, or what the driver wants of its own
    "the kernel could not be launched: out of memory",  # CUDA loads a kernel when it is first called
    "CUBLAS_STATUS_ALLOC_FAILED",
)
_PLAIN = (RuntimeError, torch.AcceleratorError)
RESTORE_AFTER = 32  # batches without a failure until the budget is doubled again
TRIM_AFTER = (
    2**19
)  # tokens computed on a CPU until the C library is asked for what it holds; one asking takes some 5 ms


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory was not to be had, on the host or a device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return type(error) in _PLAIN and any(said in str(error) for said in _SAID)


class TokenBudget:
    """Tokens in a batch: what was asked for, less while memory is short.

    Attributes:
        asked: the budget without a failure.
        now: the present one.
        lowest: the smallest so far; below `asked` where memory ran out.
    """

    def __init__(self, asked: int) -> None:
        self.asked = self.now = self.lowest = asked
        self._since = 0

    def failed(self, tokens: int) -> None:
        """A batch of so many tokens did not fit."""
        self.now = max(1, min(self.now, tokens) // 2)
        self.lowest = min(self.lowest, self.now)
        self._since = 0

    def fitted(self) -> bool:
        """A batch fitted; True when the budget grew by that."""
        if self.now == self.asked:
            return False
        self._since += 1
        if self._since < RESTORE_AFTER:
            return False
        self.now = min(self.asked, 2 * self.now)
        self._since = 0
        return True


def free_cached(device: torch.device) -> None:
    """Hands a GPU's cached blocks back, so that smaller ones can be made of them."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _c_library_trim() -> Callable[[int], int] | None:
    """glibc's `malloc_trim`; None under another C library."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None


class FreedMemory:
    """Hands the pages that the C library holds of freed tensors back to the system, now and then.

    torch asks glibc for aligned blocks, each of a size of its own in a ragged corpus; the holes they leave between what
    lives on are not used again, and a process grows by some 200 bytes a text until it is asked to let them go.
    """

    def __init__(self, trim: Callable[[int], int] | None) -> None:
        self._trim = trim
        self._tokens = 0  # of all threads; a lost count delays an asking and does no harm

    def computed(self, tokens: int, device: torch.device) -> None:
        """So many tokens more were computed there, and what they took is free again."""
        if self._trim is None or device.type != "cpu":
            return
        self._tokens += tokens
        if self._tokens >= TRIM_AFTER:
            self._tokens = 0
            self._trim(0)


FREED = FreedMemory(_c_library_trim())  # one a process, as its memory is
