"""The ops an encoder is made of. Each has a compiled kernel where there is one, and plain PyTorch everywhere.

`sentcore.ops.reference` holds the same functions in plain PyTorch alone, under the same names and signatures.
"""

from types import SimpleNamespace

from sentcore.ops.add_layer_norm import add_layer_norm
from sentcore.ops.add_layer_norm import reference as _add_layer_norm
from sentcore.ops.bias_gelu import bias_gelu
from sentcore.ops.bias_gelu import reference as _bias_gelu
from sentcore.ops.bias_gelu_layer_norm import bias_gelu_layer_norm
from sentcore.ops.bias_gelu_layer_norm import reference as _bias_gelu_layer_norm
from sentcore.ops.checks import draw_seed
from sentcore.ops.embedding_layer_norm import embedding_layer_norm
from sentcore.ops.embedding_layer_norm import reference as _embedding_layer_norm
from sentcore.ops.encoder_layers import encoder_layers
from sentcore.ops.encoder_layers import reference as _encoder_layers
from sentcore.ops.fp8_linear import Fp8Weight, fp8_linear, quantize_weight_fp8
from sentcore.ops.fp8_linear import reference as _fp8_linear
from sentcore.ops.gated_activation import gated_activation
from sentcore.ops.gated_activation import reference as _gated_activation
from sentcore.ops.int8_linear import Int8Weight, int8_linear, quantize_weight
from sentcore.ops.int8_linear import reference as _int8_linear
from sentcore.ops.linear import activation_linear, linear
from sentcore.ops.linear import reference as _linear
from sentcore.ops.linear_add_layer_norm import linear_add_layer_norm
from sentcore.ops.linear_add_layer_norm import reference as _linear_add_layer_norm
from sentcore.ops.packed_linear import PackedWeight, pack_weight, packed_linear
from sentcore.ops.packed_linear import reference as _packed_linear
from sentcore.ops.qkv_projection import qkv_projection
from sentcore.ops.qkv_projection import reference as _qkv_projection
from sentcore.ops.segment_pooling import reference as _segment_pooling
from sentcore.ops.segment_pooling import segment_pooling, segment_pooling_quantized
from sentcore.ops.varlen_attention import reference as _varlen_attention
from sentcore.ops.varlen_attention import varlen_attention, varlen_cross_attention

reference = SimpleNamespace(
    activation_linear=_linear.activation_linear,
    add_layer_norm=_add_layer_norm.add_layer_norm,
    bias_gelu=_bias_gelu.bias_gelu,
    bias_gelu_layer_norm=_bias_gelu_layer_norm.bias_gelu_layer_norm,
    embedding_layer_norm=_embedding_layer_norm.embedding_layer_norm,
    encoder_layers=_encoder_layers.encoder_layers,
    fp8_linear=_fp8_linear.fp8_linear,
    gated_activation=_gated_activation.gated_activation,
    int8_linear=_int8_linear.int8_linear,
    linear=_linear.linear,
    linear_add_layer_norm=_linear_add_layer_norm.linear_add_layer_norm,
    packed_linear=_packed_linear.packed_linear,
    qkv_projection=_qkv_projection.qkv_projection,
    segment_pooling=_segment_pooling.segment_pooling,
    segment_pooling_quantized=_segment_pooling.segment_pooling_quantized,
    varlen_attention=_varlen_attention.varlen_attention,
    varlen_cross_attention=_varlen_attention.varlen_cross_attention,
)

__all__ = [
    "Fp8Weight",
    "Int8Weight",
    "PackedWeight",
    "activation_linear",
    "add_layer_norm",
    "bias_gelu",
    "bias_gelu_layer_norm",
    "draw_seed",
    "embedding_layer_norm",
    "encoder_layers",
    "fp8_linear",
    "gated_activation",
    "int8_linear",
    "linear",
    "linear_add_layer_norm",
    "pack_weight",
    "packed_linear",
    "qkv_projection",
    "quantize_weight",
    "quantize_weight_fp8",
    "reference",
    "segment_pooling",
    "segment_pooling_quantized",
    "varlen_attention",
    "varlen_cross_attention",
]
