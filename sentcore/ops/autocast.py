"""What torch.autocast means for the ops: products in its dtype, normalization in float32, the rest in what it is given.

As torch's own layers do: https://docs.pytorch.org/docs/stable/amp.html#autocast-op-reference. Within an op autocast is off, so that a
kernel's dtypes are those that were checked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., Any])

_CAST = (torch.float32, torch.bfloat16, torch.float16)


def autocast_to(kind: str) -> Callable[[Function], Function]:
    """A decorator of an op's function, whose first argument is a tensor.

    Args:
        kind: "lower" takes tensors among the positional arguments to autocast's dtype; "float32" takes all tensors there; "given"
            leaves them. float64 is left in any case.
    """

    def decorated(function: Function) -> Function:
        @functools.wraps(function)
        def call(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            device = x.device.type if isinstance(x, torch.Tensor) else "cpu"
            if not torch.is_autocast_enabled(device):
                return function(x, *args, **kwargs)
            if kind != "given":
                dtype = torch.float32 if kind == "float32" else torch.get_autocast_dtype(device)
                x, args = _cast(x, dtype), _cast(args, dtype)
                if kind == "float32":
                    kwargs = {name: _cast(value, dtype) for name, value in kwargs.items()}
            with torch.autocast(device, enabled=False):
                return function(x, *args, **kwargs)

        return call

    return decorated


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_cast(item, dtype) for item in value)
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.dtype in _CAST else value
