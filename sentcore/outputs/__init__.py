"""What turns token features into sentence features."""

from sentcore.outputs.classification import ClassificationHead
from sentcore.outputs.colbert import Colbert
from sentcore.outputs.dense import Dense
from sentcore.outputs.normalize import Normalize
from sentcore.outputs.pooling import Pooling
from sentcore.outputs.quantize import PRECISIONS, check_precision, quantize
from sentcore.outputs.sparse import SparseLinear, SparseRows
from sentcore.outputs.specs import (
    ClassificationHeadSpec,
    DenseSpec,
    Heads,
    LinearSpec,
    NormalizeSpec,
    OutputSpec,
    PoolingSpec,
    SpladeSpec,
)
from sentcore.outputs.splade import Splade

__all__ = [
    "PRECISIONS",
    "ClassificationHead",
    "ClassificationHeadSpec",
    "Colbert",
    "Dense",
    "DenseSpec",
    "Heads",
    "LinearSpec",
    "Normalize",
    "NormalizeSpec",
    "OutputSpec",
    "Pooling",
    "PoolingSpec",
    "SparseLinear",
    "SparseRows",
    "Splade",
    "SpladeSpec",
    "check_precision",
    "quantize",
]
