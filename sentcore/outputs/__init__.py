"""What turns token features into sentence features."""

from sentcore.outputs.dense import Dense
from sentcore.outputs.layer_pooling import hidden_states_needed
from sentcore.outputs.normalize import Normalize
from sentcore.outputs.pooling import Pooling
from sentcore.outputs.quantize import PRECISIONS, calibration_ranges, check_precision, check_ranges, quantize
from sentcore.outputs.specs import DenseSpec, NormalizeSpec, OutputSpec, PoolingSpec

__all__ = [
    "PRECISIONS",
    "Dense",
    "DenseSpec",
    "Normalize",
    "NormalizeSpec",
    "OutputSpec",
    "Pooling",
    "PoolingSpec",
    "calibration_ranges",
    "check_precision",
    "check_ranges",
    "hidden_states_needed",
    "quantize",
]
