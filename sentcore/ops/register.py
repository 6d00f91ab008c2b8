"""What every op room's register.py shares: one torch library, and the way back to plain PyTorch.

Each op has its plain PyTorch kernel under CompositeExplicitAutograd, which serves every device. The compiled extension
registers CPU and CUDA kernels for the same names, and torch's dispatcher prefers those.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

import sentcore._kernels  # noqa: F401  # tells the extension which of its kernels to take
from sentcore._extension import extension, on_unsupported_device

_library = torch.library.Library("sentcore", "FRAGMENT")
_plain: dict[str, Callable] = {}


def define(schema: str, plain: Callable, fake: Callable) -> None:
    """Declares ``sentcore::<schema>`` with its plain PyTorch kernel and its shape function.

    Args:
        schema: ``name(arguments) -> results`` in torch's schema language.
        plain: the kernel in plain PyTorch, for any device.
        fake: the same signature, gives empty tensors of the right shape and dtype.
    """
    name = schema.split("(", 1)[0]
    _library.define(schema)
    _library.impl(name, plain, "CompositeExplicitAutograd")
    torch.library.register_fake(f"sentcore::{name}", fake, lib=_library)
    _plain[name] = plain


def autograd(name: str, backward: Callable, setup_context: Callable) -> None:
    """Gives ``sentcore::<name>`` its backward, as `torch.library.register_autograd` takes it."""
    torch.library.register_autograd(f"sentcore::{name}", backward, setup_context=setup_context, lib=_library)


def _use_plain_on_cuda(reason: str) -> None:
    for name, plain in _plain.items():
        if torch._C._dispatch_has_kernel_for_dispatch_key(f"sentcore::{name}", "CUDA"):
            _library.impl(name, plain, "CUDA", allow_override=True)


if extension() is not None:
    on_unsupported_device.append(_use_plain_on_cuda)
