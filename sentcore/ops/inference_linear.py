"""Linear layers for inference on a CPU, with weights packed once: by sentcore's kernels, or by oneDNN."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from sentcore._extension import extension
from sentcore.ops.packed_linear import COLUMNS, PackedWeight, pack_weight, packed_linear
from sentcore.ops.writes import written_state

# hidden_act -> (oneDNN's name of the operation after the product, its algorithm)
_AFTER = {None: ("none", ""), "relu": ("relu", ""), "gelu": ("gelu", "none"), "gelu_tanh": ("gelu", "tanh")}
_ROWS = 4096  # what oneDNN's layout is chosen for; any other number of rows is right too
_LEAST_ROWS = 2  # one row would take another way through oneDNN, with other bits


class InferenceLinear:
    """act(x Wᵀ + b) of one Linear, or of several side by side, from weights packed once.

    Packing happens at the first call without gradients and again when a weight is another tensor or has been written to, or
    an optimizer made a step; it costs as much memory again as the weights. A row's bits depend neither on the other rows nor
    on the number of threads.
    In-place writes through ``weight.data`` are not seen by torch's version counter, nor here: write under ``torch.no_grad()``
    instead, or call `forget`.
    """

    def __init__(self) -> None:
        self._key: tuple | None = None
        self._weight: PackedWeight | torch.Tensor | None = None
        self._bias: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor, linears: Sequence[nn.Linear], activation: str | None = None) -> torch.Tensor:
        """[T, K] float32 or bfloat16 -> [T, sum of the linears' output sizes]; `usable` says when this may be called."""
        weight, bias = self.packed(linears)
        if isinstance(weight, PackedWeight):
            return packed_linear(x, weight, bias, activation=activation)
        attribute, algorithm = _AFTER[activation]
        rows = x.shape[0]
        if rows < _LEAST_ROWS:
            x = F.pad(x, (0, 0, 0, _LEAST_ROWS - rows))
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, attribute, [], algorithm)[:rows]

    def some_columns(
        self, x: torch.Tensor, linears: Sequence[nn.Linear], first: int, count: int
    ) -> torch.Tensor | None:
        """[T, K] -> [T, count], the same bits as these columns of the whole; None where the packed weight has no cut there."""
        weight, bias = self.packed(linears)
        if not isinstance(weight, PackedWeight) or first % COLUMNS or count % COLUMNS:
            return None
        values = weight.values[first // COLUMNS : (first + count) // COLUMNS]
        return packed_linear(x, PackedWeight(values, count), None if bias is None else bias[first : first + count])

    def packed(self, linears: Sequence[nn.Linear]) -> tuple[PackedWeight | torch.Tensor, torch.Tensor | None]:
        """The weight as `engine` wants it, and the bias [R], as the linears are now."""
        key = tuple(map(_state_of, linears))
        if key != self._key:
            self._pack(linears)
            self._key = key
        return self._weight, self._bias

    def packed_weights(self, linears: Sequence[nn.Linear]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """values, an empty scale and the bias [R], as `encoder_layers` takes them; of the engine "kernels"."""
        weight, bias = self.packed(linears)
        values = weight.values
        if bias is None:
            bias = values.new_zeros(weight.out_features)
        return values, values.new_empty(0), bias

    def forget(self) -> None:
        """Drops the packed weights."""
        self._key = self._weight = self._bias = None

    def _pack(self, linears: Sequence[nn.Linear]) -> None:
        weights = [linear.weight.detach() for linear in linears]
        biases = [linear.bias for linear in linears]
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        if engine(weight.dtype) == "kernels":
            self._weight = pack_weight(weight)
        else:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _ROWS)
        if all(bias is None for bias in biases):
            self._bias = None
        else:
            filled = [w.new_zeros(len(w)) if b is None else b.detach() for b, w in zip(biases, weights, strict=True)]
            self._bias = torch.cat(filled)

    # Copies and pickles are of the module around it; they pack anew.
    def __deepcopy__(self, memo: dict) -> InferenceLinear:
        return InferenceLinear()

    def __reduce__(self) -> tuple:
        return InferenceLinear, ()


def usable(x: torch.Tensor, backend: str) -> bool:
    """Whether InferenceLinear may take this input: no gradients, a CPU with an engine for the dtype, no tracing."""
    return (
        backend != "reference"
        and x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and engine(x.dtype) is not None
        and not torch.compiler.is_compiling()
    )


@cache
def engine(dtype: torch.dtype) -> str | None:
    """What multiplies packed weights: "kernels", sentcore's own, "onednn", torch's, or None for plain PyTorch.

    oneDNN where the kernels are not compiled, and for bfloat16 where the CPU has matrix tiles (AMX) that they were
    compiled without, or that the system refused.
    """
    if dtype not in (torch.float32, torch.bfloat16):
        return None
    if extension() is not None and not (dtype == torch.bfloat16 and _misses_tiles()):
        return "kernels"
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return None
    supported = dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "onednn" if supported else None


def _misses_tiles() -> bool:
    """Whether the kernels do without tiles that this CPU has, though SENTCORE_CPU_ISA does not say so."""
    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    return has_tiles and extension().build_info()["cpu_isa"] != "amx" and not os.environ.get("SENTCORE_CPU_ISA")


def _state_of(linear: nn.Linear) -> tuple:
    """What changes when a weight or bias does."""
    return tuple(None if p is None else (*written_state(p), p.dtype, p.shape) for p in (linear.weight, linear.bias))
