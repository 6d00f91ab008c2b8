"""What turns token features into sentence features."""

from sentcore.outputs.classification import ClassificationHead
from sentcore.outputs.dense import Dense
from sentcore.outputs.normalize import Normalize
from sentcore.outputs.pooling import Pooling
from sentcore.outputs.quantize import PRECISIONS, check_precision, quantize
from sentcore.outputs.specs import ClassificationHeadSpec, DenseSpec, NormalizeSpec, OutputSpec, PoolingSpec

__all__ = [
    "PRECISIONS",
    "ClassificationHead",
    "ClassificationHeadSpec",
    "Dense",
    "DenseSpec",
    "Normalize",
    "NormalizeSpec",
    "OutputSpec",
    "Pooling",
    "PoolingSpec",
    "check_precision",
    "quantize",
]
