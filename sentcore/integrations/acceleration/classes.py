"""An object's class exchanged for one derived from it, so that one method differs and all else stays: copies, pickles, names."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any


class Accelerated:
    """Marks the exchanged classes; the methods they add are of the class before it."""

    def __reduce_ex__(self, protocol: int) -> tuple:
        # The exchanged class is made anew where a copy or a pickle is read: no module holds it under a name.
        kind = type(self)
        return _remake, (original_class(kind), kind.__mro__[1]), self.__getstate__()


@cache
def accelerated(kind: type, methods: type[Accelerated]) -> type:
    """`kind` with `methods` before its own, under its name."""
    return type(kind.__name__, (methods, kind), {"__module__": kind.__module__, "__qualname__": kind.__qualname__})


def is_accelerated(module: object) -> bool:
    """Whether the object's class was exchanged."""
    return isinstance(module, Accelerated)


def original_class(kind: type) -> type:
    """The class as it was before; the class itself where it was not exchanged."""
    return kind.__mro__[kind.__mro__.index(Accelerated) + 1] if issubclass(kind, Accelerated) else kind


def warn_of_own_code(module: object, reason: str) -> None:
    """Says that a call costs the gain; from the module's forward, as of its caller. Python shows it once for each reason."""
    warnings.warn(
        f"{type(module).__name__} runs its own padded code, not accelerated: {reason}", RuntimeWarning, stacklevel=3
    )


def _remake(kind: type, methods: type[Accelerated]) -> Any:
    exchanged = accelerated(kind, methods)
    return exchanged.__new__(exchanged)
