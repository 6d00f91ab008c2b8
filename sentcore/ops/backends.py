"""Which functions an encoder is assembled from: `auto` and `native` the ops, `reference` their plain PyTorch twins."""

from __future__ import annotations

from types import SimpleNamespace

from sentcore import _extension, ops
from sentcore.errors import ArgumentValueError, BackendError

BACKENDS = ("auto", "native", "reference")


def check_backend(backend: str) -> str:
    """`backend` itself when this installation can give it.

    Raises:
        ArgumentValueError: it is not one of BACKENDS.
        BackendError: "native" without the compiled extension.
    """
    if backend not in BACKENDS:
        raise ArgumentValueError(f"backend is {backend!r}; accepted: {', '.join(BACKENDS)}")
    if backend == "native" and _extension.extension() is None:
        raise BackendError(
            f"backend is 'native', but {_extension.WHY_ABSENT}; or use backend='auto' to run in plain PyTorch"
        )
    return backend


def ops_of(backend: str) -> SimpleNamespace:
    """The op functions of a backend. A name, not the functions, is what modules keep: they stay copyable and picklable."""
    return ops.reference if backend == "reference" else _NATIVE


_NATIVE = SimpleNamespace(
    activation_linear=ops.activation_linear,
    add_layer_norm=ops.add_layer_norm,
    bias_gelu=ops.bias_gelu,
    bias_gelu_layer_norm=ops.bias_gelu_layer_norm,
    embedding_layer_norm=ops.embedding_layer_norm,
    fp8_linear=ops.fp8_linear,
    gated_activation=ops.gated_activation,
    int8_linear=ops.int8_linear,
    linear=ops.linear,
    linear_add_layer_norm=ops.linear_add_layer_norm,
    packed_linear=ops.packed_linear,
    qkv_projection=ops.qkv_projection,
    segment_pooling=ops.segment_pooling,
    segment_pooling_quantized=ops.segment_pooling_quantized,
    varlen_attention=ops.varlen_attention,
    varlen_cross_attention=ops.varlen_cross_attention,
)
