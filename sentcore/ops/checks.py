"""Argument checks shared by the op rooms. Each error names the argument, the value found, what is accepted, the remedy."""

from __future__ import annotations

import torch

from sentcore._extension import ensure_device
from sentcore.errors import ArgumentTypeError, ArgumentValueError

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def check_input(name: str, value: torch.Tensor, shape: tuple[int | str, ...]) -> None:
    """The op's first tensor: a dense floating-point tensor of the given shape; strings are free sizes, for messages."""
    _check_is_tensor(name, value)
    if value.dtype not in DTYPES:
        raise ArgumentTypeError(
            f"{name} has dtype {value.dtype}; accepted: float32, bfloat16, float16, float64. "
            f"Convert it, e.g. {name}.float()"
        )
    check_shape(name, value, shape)
    ensure_device(value.device)


def check_parameter(
    name: str,
    value: torch.Tensor | None,
    shape: tuple[int | str, ...],
    like: torch.Tensor,
    *,
    optional: bool = False,
    float32_too: bool = False,
) -> None:
    """A further tensor: on `like`'s device, of `like`'s dtype (or float32 beside a half dtype, with float32_too)."""
    if value is None and optional:
        return
    _check_is_tensor(name, value)
    check_shape(name, value, shape)
    accepted = {like.dtype, torch.float32} if float32_too and like.dtype.itemsize == 2 else {like.dtype}
    if value.dtype not in accepted:
        names = " or ".join(sorted(str(dtype) for dtype in accepted))
        raise ArgumentTypeError(
            f"{name} has dtype {value.dtype}; accepted beside a {like.dtype} input: {names}. Convert one of the two"
        )
    check_device(name, value, like)


def check_device(name: str, value: torch.Tensor, like: torch.Tensor) -> None:
    """`value` lives where `like` lives."""
    if value.device != like.device:
        raise ArgumentValueError(
            f"{name} is on {value.device}, the input is on {like.device}; accepted: the same device. "
            f"Move it, e.g. {name}.to({str(like.device)!r})"
        )


def check_shape(name: str, value: torch.Tensor, shape: tuple[int | str, ...]) -> None:
    """`value.shape` equals `shape` wherever that names a number."""
    matches = value.dim() == len(shape) and all(
        isinstance(want, str) or got == want for got, want in zip(value.shape, shape, strict=True)
    )
    if not matches:
        wanted = ", ".join(str(size) for size in shape)
        raise ArgumentValueError(
            f"{name} has shape {list(value.shape)}; accepted: [{wanted}]. Reshape it or check which tensor was passed"
        )


def check_dropout(dropout_p: float, seed: torch.Tensor | None, like: torch.Tensor) -> None:
    """dropout_p in [0, 1), seed None or int64 [2] on `like`'s device."""
    if not 0.0 <= dropout_p < 1.0:
        raise ArgumentValueError(f"dropout_p is {dropout_p}; accepted: a probability in [0, 1), 0 switches dropout off")
    if seed is None:
        return
    _check_is_tensor("seed", seed)
    check_shape("seed", seed, (2,))
    if seed.dtype != torch.int64:
        raise ArgumentTypeError(
            f"seed has dtype {seed.dtype}; accepted: int64 (seed, offset), or None to draw one from torch's generator"
        )
    check_device("seed", seed, like)


def draw_seed(dropout_p: float, seed: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor | None:
    """The (seed, offset) pair dropout uses: the one given, or one drawn from the device's default generator.

    Drawing it there makes torch.manual_seed, fork_rng and activation checkpointing replay the mask.
    """
    if dropout_p == 0.0 or seed is not None:
        return seed if dropout_p > 0.0 else None
    return torch.randint(0, 2**62, (2,), dtype=torch.int64, device=like.device)


def needs_grad(*tensors: torch.Tensor | None) -> bool:
    """Whether a backward may follow, so that the op has to save for it."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _check_is_tensor(name: str, value: object) -> None:
    if not isinstance(value, torch.Tensor):
        raise ArgumentTypeError(f"{name} is {value!r} of type {type(value).__name__}; accepted: a torch.Tensor")
