"""encoder_layer for torch: schemas and shapes. It has a kernel for the CPU alone, and no other: elsewhere a layer's ops run
one by one."""

from __future__ import annotations

from sentcore.ops.register import define


def _absent(*_):
    raise NotImplementedError(
        "sentcore::encoder_layer has a kernel for float32 on the CPU, in the compiled extension; run the layer's ops one by one"
    )


def _forward_fake(x, cu_seqlens, max_seqlen, num_heads, qkv, weights, *_):
    (tokens, hidden), inner = x.shape, weights[5].shape[0]
    wide, stat = x.new_empty((tokens, hidden)), x.new_empty((tokens,))
    shapes = [
        wide,
        (tokens, 3 * hidden),
        (tokens, num_heads),
        wide,
        wide,
        stat,
        stat,
        wide,
        (tokens, inner),
        wide,
        stat,
        stat,
    ]
    return [x.new_empty(shape if isinstance(shape, tuple) else shape.shape) for shape in shapes]


def _backward_fake(grad_out, x, cu_seqlens, max_seqlen, num_heads, qkv, weights, *rest):
    needed, half = rest[-1], len(qkv) // 2
    tensors = [*qkv, *weights]
    some_bias = any(needed[half : len(qkv)])
    wanted = [some_bias if half <= i < len(qkv) else need or tensors[i].dim() == 1 for i, need in enumerate(needed)]
    shapes = [t.shape if want else (0, *t.shape[1:]) for t, want in zip(tensors, wanted, strict=True)]
    return [x.new_empty(shape) for shape in (x.shape, *shapes)]


_GIVEN = "Tensor x, Tensor cu_seqlens, int max_seqlen, int num_heads, Tensor[] qkv, Tensor[] weights"
_OPTIONS = "str activation, float eps, float attention_dropout_p, float hidden_dropout_p, Tensor[] seeds"

define(f"encoder_layer({_GIVEN}, {_OPTIONS}) -> Tensor[]", _absent, _forward_fake)
define(
    f"encoder_layer_backward(Tensor grad_out, {_GIVEN}, Tensor[] saved, {_OPTIONS}, bool[] needed) -> Tensor[]",
    _absent,
    _backward_fake,
)
